"""Small files that go wrong easily; README.md says what is right for each."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def case(name: str) -> bytes:
    """The bytes of one file."""
    return (FOLDER / name).read_bytes()
