"""The commands of clusters, which the `masklet` program finds by entry points. They load Ray when they need it."""

from masklet_cluster.cli.cluster import app as cluster
from masklet_cluster.cli.gateway import gateway

__all__ = ["cluster", "gateway"]
