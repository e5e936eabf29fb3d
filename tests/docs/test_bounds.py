"""The table of all bounds: it names every setting that bounds something, with its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from masklet.cli.info import LIMITS
from masklet_server.limit_names import CONTRACT_LIMITS, OTHER_LIMITS
from masklet_server.settings import Settings

PAGE = Path(__file__).parents[2] / "docs/guides/security.md"
# "0" stands for a default that is told in words.
IN_WORDS = {
    "no limit": 0,
    "half of the machine's": 0,
    "half of that": 0,
    "an eighth of the machine's": 0,
    "an eighth of the device's": 0,
    "32 MiB": 32 * 2**20,
    "512 MiB": 512 * 2**20,
    "256 MiB": 256 * 2**20,
    "16 MiB": 16 * 2**20,
    "1 KiB": 1024,
    "32 GiB": 32 * 2**30,
    "16 GiB": 16 * 2**30,
    "8 GiB": 8 * 2**30,
    "4 GiB": 4 * 2**30,
    "2 GiB": 2 * 2**30,
}


def bounds() -> set[str]:
    found = set()
    for name, field in Settings.model_fields.items():
        extra: Any = field.json_schema_extra
        if extra["panel"].startswith("Limits") and not isinstance(field.default, str):
            found.add(name)
    return found | {"max_message_bytes"}


def table() -> dict[str, float]:
    """The defaults in the table, by the names of settings."""
    found: dict[str, float] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and (names := re.findall(r"`(\w+)`", cells[1])):
            for name, text in zip(names, cells[2].split(", "), strict=False):
                found[name] = IN_WORDS[text] if text in IN_WORDS else float(text)
    return found


def test_every_bound_is_in_the_table_with_its_default() -> None:
    assert table() == {name: Settings.model_fields[name].default for name in bounds()}


def test_every_bound_is_told_to_clients_and_described() -> None:
    told = {*CONTRACT_LIMITS, *OTHER_LIMITS}
    assert bounds() <= told
    assert told == LIMITS.keys()
