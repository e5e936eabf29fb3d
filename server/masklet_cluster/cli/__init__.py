"""The commands of clusters, which the `masklet` program finds by entry points."""

from masklet_cluster.cli.gateway import gateway

__all__ = ["gateway"]
