"""Large frames, long videos, and the command as people start it; memory stays flat."""

from __future__ import annotations

import io
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from masklet import rle
from masklet_studio.project.project import Project
from masklet_studio.project.records import VISIBLE, MaskRecord
from masklet_studio.project.video_project import VideoProject
from tests.support import clips, synthetic
from tests.support.studio import running_studio

pytestmark = pytest.mark.slow
LONG = 10_000


def _numbered(count: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Pictures of 64x48 pixels that show their own number, a bit in each field of 4x8."""
    for number in range(count):
        bits = [(number >> bit) & 1 for bit in range(16)]
        row = np.repeat(np.array(bits, np.uint8) * 255, 4)
        yield np.repeat(np.tile(row, (48, 1))[:, :, None], 3, axis=2)


def _number(picture: bytes) -> int:
    row = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))[24]
    return sum(int(row[bit * 4 + 1 : bit * 4 + 3].mean() > 127) << bit for bit in range(16))


def test_a_4k_clip(nano_server: str, tmp_path: Path) -> None:
    pictures = [np.repeat(np.repeat(one, 9, axis=0), 12, axis=1) for one in synthetic.clip(4, 240, 320)]
    path = tmp_path / "4k.mp4"
    path.write_bytes(clips.make_clip("mp4", "libx264", size=(3840, 2160), pictures=pictures))
    with running_studio(tmp_path / "work", path, server=nano_server) as studio:
        video = studio.videos()[0]
        assert (video["width"], video["height"]) == (3840, 2160)
        for width, shown in (("full", (3840, 2160)), ("1280", (1280, 720))):
            answer = studio.ask(f"/videos/{video['id']}/frames/3?width={width}")
            assert Image.open(io.BytesIO(answer.body)).size == shown
        with studio.tab(video["id"]) as page:
            one = page.do("add_object")["object"]
            x, y = synthetic.BLOBS[0].center(0, 2160, 3840)
            seen = page.click(one, 0, (x, y, 1))
            assert seen.size == (3840, 2160)
            assert synthetic.iou(seen.mask, synthetic.BLOBS[0].mask(0, 2160, 3840)) > 0.7
            page.track(0)
            page.do("edit_mask", object=one, frame=2, mask=rle.encode(seen.mask)["counts"])
            assert len(page.masks) == 4


def test_a_long_clip_takes_no_more_memory(nano_server: str, tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    options = {"preset": "ultrafast", "bf": "2"}
    path.write_bytes(
        clips.make_clip(
            "mp4", "libx264", size=(64, 48), gop=250, codec_options=options, pictures=_numbered(LONG), rate=50
        )
    )
    project = Project(tmp_path / "work")
    entry = project.add(path)
    kept = VideoProject(project.folder_of(entry.video_id))
    kept.do("add_object", {"object": 1, "name": "", "class": "", "colour": "#00ff00"})
    mask = np.zeros((48, 64), bool)
    mask[10:20, 10:30] = True
    counts = rle.encode(mask)["counts"].encode()
    kept.do(
        "track",
        {"objects": [1], "direction": "forward", "from": 0, "first": 0, "last": LONG - 1},
        [MaskRecord(1, frame, 2, VISIBLE, 0.9, 5.0, 200, (64, 48), counts) for frame in range(LONG)],
    )
    kept.close()
    project.close()
    with running_studio(tmp_path / "work", server=nano_server) as studio:
        video = studio.videos()[0]
        assert video["frames"] == LONG
        with studio.tab(video["id"]) as page:
            assert page.state["lanes"][0]["runs"] == [[0, LONG - 1, 1]]
            rng = random.Random(3)

            def scrub(times: int) -> None:
                for _ in range(times):
                    frame = rng.randrange(LONG)
                    answer = studio.ask(f"/videos/{video['id']}/frames/{frame}?width=full")
                    assert _number(answer.body) == frame
                    page.do("masks", **{"from": frame, "to": min(LONG - 1, frame + 99)})
                    page.masks.clear()
                    page.records.clear()

            scrub(30)
            assert page.do("review")["frames"] == []
            before = studio.memory()
            scrub(120)
            assert studio.memory() - before < 24 * 2**20
            page.click(1, LONG - 30, (20.0, 15.0, 1))
            page.track(LONG - 30)
            assert studio.memory() - before < 48 * 2**20


def test_the_command_starts_its_own_server_and_shows_a_picture_first(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clips.make_clip("mp4", "libx264", size=(320, 240), pictures=list(synthetic.clip(8, 240, 320))))
    home = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "home")}
    refused = subprocess.run(
        ["python", "-m", "masklet_studio", "nothing.mp4", "--no-browser"], check=False, capture_output=True, env=home
    )
    assert refused.returncode != 0
    with running_studio(tmp_path / "work", path, server=None) as studio:
        begun = time.monotonic()
        video = studio.videos()[0]
        assert studio.ask(f"/videos/{video['id']}/frames/0?width=full").status == 200
        with studio.tab(video["id"]) as page:
            one = page.do("add_object")["object"]
            x, y = synthetic.BLOBS[0].center(0, 240, 320)
            page.do("prompt", object=one, frame=0, points=[[x, y, 1]], box=None, mask=None)
            while (one, 0) not in page.masks:  # the model may still be loading
                page.hear()
            assert synthetic.iou(page.masks[one, 0].mask, synthetic.BLOBS[0].mask(0, 240, 320)) > 0.7
            page.track(0)
        assert time.monotonic() - begun < 120
        assert studio.ask("/api/state").json["model"] == "nano"
