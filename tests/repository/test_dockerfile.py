"""The image can't be built here; what can be held against the repository is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from masklet_server.settings import ENV_PREFIX, Settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
ALLOWED = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
COPIED = [
    source for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]
]


@pytest.mark.parametrize("source", COPIED)
def test_what_is_copied_exists_and_is_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    assert source in ALLOWED


def test_nothing_is_sent_in_vain() -> None:
    assert set(COPIED) == ALLOWED


def test_variables_are_settings() -> None:
    names = {name.removeprefix(ENV_PREFIX).lower() for name in re.findall(r"\bMASKLET_[A-Z_]+", DOCKERFILE)}
    assert names - {"cache"} <= set(Settings.model_fields)


def test_image_is_pinned_and_not_root() -> None:
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:3.12.12-slim-bookworm"}
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
