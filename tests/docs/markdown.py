"""Reads the project's Markdown: its code blocks, its links and its headings."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docs.generate.markdown import anchor

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^( *)(`{3,})(\w*)\s*$")
_COMMENT = re.compile(r"^ *<!-- not run: (.+) -->\s*$")
_LINK = re.compile(r"(?<!\\)!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: The file, relative to the repository.
        line: The line of its first fence, from 1.
        language: The word after the fence; may be empty.
        text: What is between the fences, without their indentation.
        why_not_run: What its marker `<!-- not run: ... -->` says; None for a block that can be run.
    """

    page: str
    line: int
    language: str
    text: str
    why_not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that people read: of the root, of `docs/`, and the cards beside code."""
    beside = [
        ROOT / "checkpoints" / "masklet-nano.md",
        ROOT / "training" / "README.md",
        ROOT / "examples/ATTRIBUTION.md",
    ]
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *beside]


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


@functools.cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The page's blocks of code, in order."""
    return tuple(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        number += 1
        if opening is None:
            continue
        indent, fence, language = opening.groups()
        start = number
        while lines[number].strip() != fence:
            number += 1
        text = "".join(f"{line.removeprefix(indent)}\n" for line in lines[start:number])
        marker = _COMMENT.match(lines[start - 2]) if start > 1 else None
        yield Block(name_of(page), start, language, text, marker[1] if marker else None)
        number += 1


@functools.cache
def prose(page: Path) -> str:
    """The page without its blocks of code and without comments."""
    text = re.sub(r"^( *)(`{3,})\w*\n.*?^\1\2$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


def links(page: Path) -> list[str]:
    """The targets of the page's links and pictures."""
    return [match[1] for match in _LINK.finditer(prose(page))]


def words_in_code(page: Path) -> set[str]:
    """What stands between single backticks."""
    return set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page)))


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of the page's headings."""
    headings = [_HEADING.match(line) for line in prose(page).splitlines()]
    found: list[str] = []
    for name in [anchor(match[1]) for match in headings if match]:
        count = sum(1 for other in found if other == name or re.fullmatch(rf"{re.escape(name)}-\d+", other))
        found.append(f"{name}-{count}" if count else name)
    return frozenset(found)
