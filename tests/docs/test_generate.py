"""The generated reference is whole, and the folder of the site holds together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import masklet
import masklet.batch
import masklet.compat
import masklet.compat.transformers
from docs.generate import __main__ as generate
from docs.generate import command_line, contract, python_api, settings
from masklet.v1 import common_pb2, image_pb2, server_info_pb2, tracking_pb2
from masklet_server.settings import Settings
from tests.docs.markdown import ROOT, anchors, links


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the site is built from."""
    out = tmp_path_factory.mktemp("site") / "docs"
    generate.lay_out(out)
    return out


def test_every_link_of_the_site_resolves(site: Path) -> None:
    for page in site.rglob("*.md"):
        for link in links_of(page):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.relative_to(site)}: {link}"
            assert target.is_relative_to(site)
            if anchor:
                assert anchor in anchors(target), f"{page.relative_to(site)}: {link}"


def links_of(page: Path) -> list[str]:
    return [link for link in links(page) if not re.match(r"https?://|mailto:", link)]


def test_links_to_the_repository_exist(site: Path) -> None:
    found = {link for page in site.rglob("*.md") for link in links(page) if link.startswith(generate.REPOSITORY)}
    assert len(found) > 20
    for link in found:
        assert (ROOT / link.removeprefix(f"{generate.REPOSITORY}/").partition("#")[0]).exists(), link


def test_generated_pages_are_linked(site: Path) -> None:
    index = (site / "reference" / "index.md").read_text()
    assert all(f"({Path(name).name})" in index for name in generate.GENERATED)
    assert "generated page" not in index


def test_every_public_name_is_in_the_reference() -> None:
    page = python_api.render()
    modules = {"batch", "drawing", "export", "importing", "rle"}
    names = {name for name in masklet.__all__ if not name.startswith("__")} - modules
    for name in (
        *names,
        *masklet.compat.__all__,
        *masklet.compat.transformers.__all__,
        "drawing.colour_of",
        "rle.find_runs",
        "export.write",
        "importing.read",
        *(f"batch.{name}" for name in masklet.batch.__all__ if name != "Batch"),
    ):
        assert f"### {name}\n" in page
    assert "#### Client.track\n" in page
    assert "#### FrameResult.masks\n" in page
    assert page.count("\n```") % 2 == 0


def test_every_setting_is_in_the_reference() -> None:
    page = settings.render()
    for name, field in Settings.model_fields.items():
        assert f"| `{name}` |" in page
        assert field.description
    assert "| `max_upload_bytes` | `--max-upload-bytes` | `2.0GiB` |" in page


def test_every_command_is_in_the_reference() -> None:
    page = command_line.render()
    for name, command in command_line.commands().items():
        assert f"## {name}\n" in page
        for option in command_line.options(command) - {"--help", "-h"}:
            assert option in page, f"{name} {option}"


def test_the_whole_contract_is_in_the_reference() -> None:
    page = contract.render()
    for module in (common_pb2, image_pb2, server_info_pb2, tracking_pb2):
        for message in module.DESCRIPTOR.message_types_by_name.values():
            assert f"### {message.name}\n" in page
            assert all(f"| `{field.name}` |" in page for field in message.fields)
        for enum in module.DESCRIPTOR.enum_types_by_name.values():
            assert all(f"| `{value.name}` |" in page for value in enum.values)
    for method in tracking_pb2.DESCRIPTOR.services_by_name["TrackingService"].methods:
        assert f"#### TrackingService.{method.name}\n" in page
