"""Lays out the documentation for the site: `python -m docs.generate [--out FOLDER]`.

The site is built from `build/docs`, which this makes anew: the pages of `docs/`, with links to files outside of it
turned into links to the repository, and the generated pages of the reference. `docs/` itself stays as it is, so that
its links work where people read the files in the repository.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from docs.generate import command_line, contract, python_api, settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/masklet/masklet/blob/main"

GENERATED: dict[str, Callable[[], str]] = {
    "reference/cli.md": command_line.render,
    "reference/python.md": python_api.render,
    "reference/settings.md": settings.render,
    "reference/contract.md": contract.render,
}
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
# In reference/index.md: the place of the link to a generated page, which the repository does not have.
_PLACE = re.compile(r"<!-- generated page: (\S+), (.+) -->")


def lay_out(out: Path) -> None:
    """Make the folder that the site is built from."""
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(DOCS, out, ignore=shutil.ignore_patterns("generate", "__pycache__"))
    for copied in sorted(out.rglob("*.md")):
        copied.write_text(_for_the_site(copied.read_text(), copied.relative_to(out)))
    for name, render in GENERATED.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(render())


def _for_the_site(text: str, name: Path) -> str:
    """A page of the site; `name` is the page's path in `docs/`."""

    def link(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(DOCS / name.parent / match[2]))
        if target.is_relative_to(DOCS):
            return match[0]
        return f"{match[1]}{REPOSITORY}/{target.relative_to(ROOT).as_posix()}{match[3]}"

    return _PLACE.sub(r"[\2](\1)", _LINK.sub(link, text))


def main() -> None:
    """Read the arguments and lay out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs")
    lay_out(parser.parse_args().out)


if __name__ == "__main__":
    main()
