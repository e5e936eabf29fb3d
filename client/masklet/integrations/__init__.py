"""Results in other people's libraries: a module for each, which imports its library when it is used.

    from masklet.integrations import supervision

    for frame in client.track("clip.mp4", prompt):
        detections = supervision.detections(frame)

`supervision`, `fiftyone`, `rerun` and `pandas` are extras: ``pip install 'masklet[supervision]'``.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from masklet.errors import Unavailable


def library(module: str, package: str, extra: str) -> ModuleType:
    """Import a library that is an extra.

    Args:
        module: What is imported.
        package: What is installed.
        extra: The extra of masklet that installs it.

    Raises:
        Unavailable: It is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise Unavailable(f"this needs {package}, which is not installed: pip install 'masklet[{extra}]'") from None
