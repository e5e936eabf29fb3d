"""What the studio serves before anybody has clicked: the page, small and never outdated, and the first state."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from masklet.export import FORMATS
from masklet_studio.studio import MAX_DECODERS
from tests.support.browser import PAGE
from tests.support.e2e import lossless
from tests.support.studio import RunningStudio, children, running_studio

pytestmark = pytest.mark.slow
MAX_TRANSFERRED = 100_000
GZIP = {"accept-encoding": "gzip"}


@pytest.fixture(scope="module")
def studio(nano_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio with more videos than decoding processes are kept for."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "videos").mkdir()
    for number in range(MAX_DECODERS + 2):
        (folder / "videos" / f"{number}.mkv").write_bytes(lossless())
    with running_studio(folder / "work", folder / "videos", server=nano_server) as running:
        yield running


def test_the_page_is_sent_compressed_and_asked_for_again(studio: RunningStudio) -> None:
    files = [path for path in PAGE.rglob("*") if path.suffix in {".css", ".js", ".mjs", ".svg"}]
    sent = 0
    for path, content in [("/", PAGE / "index.html"), *((f"/page/{one.relative_to(PAGE)}", one) for one in files)]:
        answer = studio.ask(path, headers=GZIP)
        assert answer.headers["cache-control"] == "no-cache", path
        packed = answer.headers.get("content-encoding") == "gzip"
        assert packed or len(answer.body) < 500, path
        assert (gzip.decompress(answer.body) if packed else answer.body) == content.read_bytes()
        if path.endswith("js"):
            assert answer.headers["content-type"].startswith("text/javascript"), path
        sent += len(answer.body)
    assert sent < MAX_TRANSFERRED


def test_a_file_that_has_not_changed_is_not_sent_again(studio: RunningStudio) -> None:
    first = studio.ask("/page/main.js", headers=GZIP)
    again = studio.ask("/page/main.js", headers={**GZIP, "if-none-match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


def test_nothing_outside_the_page_is_served(studio: RunningStudio) -> None:
    for path in ("../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", "%00", "parts/%2e%2e/%2e%2e/app.py"):
        assert studio.ask(f"/page/{path}").status == 404, path


def test_every_format_has_a_name_for_people(studio: RunningStudio) -> None:
    listed = studio.ask("/api/state").json["exports"]
    assert {one["format"] for one in listed} == {"masklet", *FORMATS}
    assert [one["name"] for one in listed[:2]] == ["COCO", "YOLO segmentation"]
    assert [one["format"] for one in listed if one["name"] == one["format"]] == ["masklet"]


def test_a_project_of_many_videos_keeps_few_decoding_processes(studio: RunningStudio) -> None:
    videos = studio.videos()
    assert len(videos) == MAX_DECODERS + 2
    for video in [*videos, videos[0]]:
        assert studio.ask(f"/videos/{video['id']}/frames/1?width=full").status == 200
        assert 1 <= len(children(studio, "decoder_main")) <= MAX_DECODERS
