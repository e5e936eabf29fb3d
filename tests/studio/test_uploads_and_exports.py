"""From a video on the page's machine to files of results, over HTTP, with a real server and nano."""

from __future__ import annotations

import http.client
import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import masklet
from masklet import rle
from masklet.errors import NotFound, ResourceExhausted
from masklet_studio.project.project import Project
from masklet_studio.uploads import FORGET_SECONDS, MAX_UNFINISHED, Uploads
from tests.support.e2e import NUM_FRAMES, center, lossless
from tests.support.studio import Page, RunningStudio, running_studio, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studio(nano_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    folder = tmp_path_factory.mktemp("studio")
    options = ("--max-upload-gib", "0.01")
    with running_studio(folder / "work", server=nano_server, options=options) as running:
        yield running


@pytest.fixture(scope="module")
def video(studio: RunningStudio) -> str:
    """The clip, uploaded in two parts with a break in the second one."""
    data = lossless()
    begun = studio.post("/api/uploads", name="my clip.mkv", size=len(data)).json
    where = f"/api/uploads/{begun['id']}"
    assert begun["offset"] == 0
    third = len(data) // 3
    assert studio.ask(f"{where}?offset=0", "PATCH", data[:third]).json == {"offset": third}
    wrong = studio.ask(f"{where}?offset=0", "PATCH", data[:third])
    assert (wrong.status, wrong.json["offset"]) == (409, third)
    _break_off(studio, f"{where}?offset={third}", data[third : 2 * third], len(data) - third)
    offset = wait_for(lambda: studio.ask(where).json["offset"] - third) + third
    assert third < offset <= 2 * third
    last = studio.ask(f"{where}?offset={offset}", "PATCH", data[offset:]).json
    assert studio.ask(where).status == 404
    found: str = last["video"]["id"]
    assert [(one["id"], one["name"], one["frames"]) for one in studio.videos()] == [(found, "my clip.mkv", NUM_FRAMES)]
    return found


def _break_off(studio: RunningStudio, path: str, data: bytes, length: int) -> None:
    """Say that a part has so many bytes, send fewer, and hang up."""
    connection = http.client.HTTPConnection(studio.host)
    connection.putrequest("PATCH", path)
    connection.putheader("content-length", str(length))
    connection.endheaders()
    connection.send(data)
    connection.close()


def test_uploads_are_bounded(studio: RunningStudio) -> None:
    large = studio.post("/api/uploads", name="a.mp4", size=2**30)
    assert large.status == 413
    assert "the most allowed is" in large.json["error"]["message"]
    for name in ("../a.mp4", "", "a\n.mp4", 7):
        assert studio.post("/api/uploads", name=name, size=5).json["error"]["field"] == "name"
    assert studio.post("/api/uploads", name="a.mp4", size=-5).json["error"]["field"] == "size"
    upload = studio.post("/api/uploads", name="a.mp4", size=5).json["id"]
    assert studio.ask(f"/api/uploads/{upload}?offset=0", "PATCH", b"123456").status == 413
    assert studio.ask(f"/api/uploads/{upload}?offset=x", "PATCH", b"").json["error"]["field"] == "offset"
    assert studio.ask(f"/api/uploads/{upload}", "DELETE").status == 200
    assert studio.ask(f"/api/uploads/{upload}").status == 404
    begun = [studio.post("/api/uploads", name="a.mp4", size=5).json.get("id") for _ in range(17)]
    assert [one is None for one in begun] == [False] * 16 + [True]
    for one in begun[:16]:
        studio.ask(f"/api/uploads/{one}", "DELETE")


def test_an_upload_that_was_given_up_makes_room(tmp_path: Path) -> None:
    project = Project(tmp_path)
    uploads = Uploads(project, 100)
    begun = [uploads.begin(f"{number}.mp4", 5) for number in range(MAX_UNFINISHED)]
    with pytest.raises(ResourceExhausted, match="not finished"):
        uploads.begin("new.mp4", 5)
    long_ago = time.time() - FORGET_SECONDS - 1
    os.utime(begun[3].part, (long_ago, long_ago))
    uploads.begin("new.mp4", 5)
    assert not begun[3].part.exists()
    with pytest.raises(NotFound):
        uploads.find(begun[3].upload_id)
    with pytest.raises(ResourceExhausted, match="not finished"):
        uploads.begin("new.mp4", 5)
    project.close()


def test_what_is_no_video_says_so(studio: RunningStudio) -> None:
    upload = studio.post("/api/uploads", name="notes.mp4", size=9).json["id"]
    video = studio.ask(f"/api/uploads/{upload}?offset=0", "PATCH", b"not video").json["video"]["id"]
    told = next(one for one in studio.videos() if one["id"] == video)
    assert not told["ready"]
    assert "cannot be decoded" in told["error"]
    assert studio.ask(f"/videos/{video}/frames/0").status == 422
    with pytest.raises(ConnectionError), studio.tab(video):
        pass
    assert studio.ask(f"/api/videos/{video}", "DELETE").status == 200
    assert video not in [one["id"] for one in studio.videos()]


@pytest.fixture(scope="module")
def page(studio: RunningStudio, video: str) -> Iterator[Page]:
    with studio.tab(video) as page:
        for blob, name in ((0, "red ball"), (1, "")):
            one = page.do("add_object", name=name, **{"class": "ball"})["object"]
            page.click(one, 0, (*center(blob), 1))
        page.track(0)
        yield page


def _exported(studio: RunningStudio, page: Page, video: str, to: str, **options: object) -> tuple[str, bytes]:
    answer = studio.post(f"/api/videos/{video}/exports", format=to, options=options)
    assert answer.status == 200, answer.json
    export = answer.json["id"]
    ended = page.wait("export", lambda told: told["id"] == export and (told["ready"] or told["error"]))
    assert ended["error"] is None
    assert ended["done"] == ended["total"]
    file = studio.ask(f"/api/exports/{export}/file")
    return file.headers["content-disposition"], file.body


def test_masks_come_out_as_they_went_in(studio: RunningStudio, page: Page, video: str, tmp_path: Path) -> None:
    page.do("masks", **{"from": 0, "to": NUM_FRAMES - 1})
    name, data = _exported(studio, page, video, "coco")
    assert "my_clip-coco.json" in name
    coco = json.loads(data)
    assert {one["name"] for one in coco["categories"]} == {"ball"}
    found = {(one["track_id"], one["image_id"]): one for one in coco["annotations"]}
    assert len(found) == sum(record.visible for record in page.masks.values()) >= 2 * NUM_FRAMES - 4
    (tmp_path / "all.jsonl").write_bytes(_exported(studio, page, video, "masklet")[1])
    recording = masklet.Recording.load(tmp_path / "all.jsonl")
    assert {one.label for one in recording.objects.values()} == {"red ball", "object 2"}
    for (object_id, frame), record in page.masks.items():
        result = recording[frame].objects[object_id]
        assert result.rle["counts"].encode() == record.counts or not record.area
        mask = rle.decode(result.rle)
        assert (mask == record.mask).all()
        if record.area:
            ys, xs = mask.nonzero()
            assert result.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_folders_come_as_archives_and_pictures_from_the_video(studio: RunningStudio, page: Page, video: str) -> None:
    name, data = _exported(studio, page, video, "davis", pictures=True, objects=[1])
    assert name.endswith('.zip"')
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        kinds = [Path(one).suffix for one in archive.namelist()]
    assert kinds.count(".png") == kinds.count(".jpg") == NUM_FRAMES
    assert _exported(studio, page, video, "matte", extension=".mp4", background="green")[1][4:8] == b"ftyp"


def test_what_cannot_be_exported_is_said(studio: RunningStudio, page: Page, video: str) -> None:
    where = f"/api/videos/{video}/exports"
    known = {one["format"]: one for one in studio.ask("/api/state").json["exports"]}
    assert {"masklet", "coco", "matte", "cvat"} <= known.keys()
    for fields, field in (
        ({"format": "nothing"}, "format"),
        ({"format": "coco", "options": {"objects": [9]}}, "options.objects"),
        ({"format": "coco", "options": {"extension": ".exe"}}, "options.extension"),
        ({"format": "coco", "options": {"shape": "star"}}, "options.shape"),
        ({"format": "coco", "options": {"path": "/etc"}}, "options.path"),
    ):
        answer = studio.post(where, **fields)
        assert (answer.status, answer.json["error"]["field"]) == (400, field)
    assert studio.ask("/api/exports/../../etc/passwd/file").status == 404
    assert studio.ask("/api/exports/nothing/file").status == 404
    assert studio.ask(where, "POST", b"[" * 70000).status == 413
