"""The server's commands, which the `masklet` program finds by entry points. Importing them loads no torch."""

from masklet_server.cli.doctor import doctor
from masklet_server.cli.models import app as models
from masklet_server.cli.serve import serve

__all__ = ["doctor", "models", "serve"]
