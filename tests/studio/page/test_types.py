"""The types in the page's comments, checked by TypeScript where it is at hand; it is never needed to run the page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.browser import PAGE

OPTIONS = {
    "checkJs": True,
    "allowJs": True,
    "noEmit": True,
    "strict": True,
    "skipLibCheck": True,
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "lib": ["es2022", "dom", "dom.iterable", "webworker"],
    "types": [],
}


def compiler() -> list[str]:
    """The command of TypeScript's compiler. npx takes it from npm's cache, and never asks the registry."""
    if shutil.which("tsc"):
        return ["tsc"]
    if shutil.which("npx") is None:
        pytest.skip("needs Node: https://nodejs.org")
    command = ["npx", "--offline", "--yes", "--package", "typescript", "tsc"]
    environment = {**os.environ, "npm_config_update_notifier": "false"}
    if subprocess.run([*command, "--version"], capture_output=True, env=environment, check=False).returncode:
        pytest.skip("needs TypeScript in npm's cache: npx --package typescript tsc --version")
    return command


def check(root: Path, *files: Path) -> str:
    """What the compiler says of these files and all that they import."""
    (root / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": OPTIONS, "files": [str(file) for file in files]})
    )
    done = subprocess.run([*compiler(), "-p", str(root)], capture_output=True, text=True, check=False, timeout=120)
    return done.stdout + done.stderr


def test_the_types_fit(tmp_path: Path) -> None:
    assert check(tmp_path, PAGE / "main.js", PAGE / "masks" / "worker.js") == ""


@pytest.mark.slow
def test_a_wrong_type_is_found(tmp_path: Path) -> None:
    """The test above would pass as well if the compiler looked at nothing."""
    (tmp_path / "wrong.js").write_text(
        f'import {{ frame }} from "{PAGE}/state/store.js";\nframe.value = "twelve";\nexport {{}};\n'
    )
    assert "TS2322" in check(tmp_path, tmp_path / "wrong.js")
