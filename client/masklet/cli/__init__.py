"""The command line: `masklet track`, `masklet segment`, `masklet serve` and others."""

from masklet.cli.app import main

__all__ = ["main"]
