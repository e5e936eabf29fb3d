"""What a page lacks for people who do not see it well, or use no mouse: names, contrast, focus, text that is cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

_CHECKS = Path(__file__).with_suffix(".js").read_text().strip()


def poor_contrast(page: Any) -> list[str]:
    """Text whose colour is too near to what is behind it."""
    found: list[str] = page.evaluate(f"{_CHECKS}.poorContrast()")
    return found


def nameless(page: Any) -> list[str]:
    """Controls without a name, or whose name lacks the text that is read on them."""
    found: list[str] = page.evaluate(f"{_CHECKS}.nameless()")
    return found


def cut(page: Any) -> list[str]:
    """Buttons whose text is cut, and controls that lie outside the window or under something else."""
    found: list[str] = page.evaluate(f"{_CHECKS}.cut()")
    return found


def focused(page: Any) -> dict[str, Any] | None:
    """What has the focus: its area, name, size, and whether that is seen; None where nothing has."""
    found: dict[str, Any] | None = page.evaluate(f"{_CHECKS}.focused()")
    return found


def axe(folder: Path) -> str | None:
    """The source of axe-core, if npm has it in its cache; the registry is never asked."""
    if shutil.which("npm") is None:
        return None
    environment = {**os.environ, "npm_config_update_notifier": "false"}
    command = ["npm", "pack", "--offline", "--silent", "axe-core", "--pack-destination", str(folder)]
    if subprocess.run(command, capture_output=True, env=environment, check=False).returncode:
        return None
    with tarfile.open(next(folder.glob("axe-core-*.tgz"))) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


def violations(page: Any, source: str) -> list[str]:
    """What axe-core finds on a page."""
    page.evaluate(source)
    found: list[str] = page.evaluate(
        """async () => (await axe.run(document, { resultTypes: ['violations'] })).violations.flatMap((one) =>
            one.nodes.map((node) => `${one.id}: ${node.html.slice(0, 120)}`))"""
    )
    return found
