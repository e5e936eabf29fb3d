"""Ray Data with the real Ray: clips in, rows of results out. Skipped where Ray or what Ray Data needs is missing."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import masklet
from masklet.batch import Patience
from masklet.integrations.ray import Tracker
from tests.support.e2e import center, lossless, truth
from tests.support.scripted.fake_server import FakeServer
from tests.support.synthetic import iou

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'masklet[ray]'")
FRAMES = 4
POINTS = json.dumps([{"object": 1, "name": "blob", "class": "thing", "points": [list(center(0))]}])


def rows_of(tables: Any) -> list[dict[str, Any]]:
    return [row for table in tables for row in table.to_pylist()]


def column(*values: Any) -> Any:
    made = np.empty(len(values), object)
    made[:] = values
    return made


def test_a_row_for_each_object_on_each_frame() -> None:
    with FakeServer() as server:
        tracker = Tracker(server.address)
        batch = {"bytes": column(b"video", b"video"), "prompts": column(POINTS, POINTS), "clip": column("a", "b")}
        rows = rows_of(tracker(batch))
        tracker.close()
    assert [(row["clip"], row["frame_index"]) for row in rows] == [(c, i) for c in "ab" for i in range(5)]
    assert {(row["name"], row["class_name"], row["area"], row["error"]) for row in rows} == {("blob", "thing", 400, "")}
    mask = masklet.decode_rle({"size": [rows[2]["height"], rows[2]["width"]], "counts": rows[2]["counts"]})
    assert mask[10:30, 7:27].all()


def test_a_row_for_each_clip(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    (tmp_path / "p.json").write_text(POINTS)
    with FakeServer() as server:
        tracker = Tracker(server.address, rows="clips")
        row = rows_of(tracker({"path": column(str(tmp_path / "a.mp4")), "prompts": column(str(tmp_path / "p.json"))}))[
            0
        ]
        tracker.close()
    assert (row["clip"], row["frames"], row["objects"], row["error"]) == (str(tmp_path / "a.mp4"), 5, 1, "")
    (tmp_path / "result.json").write_text(row["result"])
    assert masklet.Recording.load(tmp_path / "result.json").objects[1].name == "blob"


def test_prompts_as_arrow_gives_them() -> None:
    """Of a column of lists of structs, each struct has the keys of all."""
    entry = {"object": 3, "points": np.array([np.array([1.0, 2.0])], dtype=object), "box": None, "name": None}
    with FakeServer() as server:
        tracker = Tracker(server.address)
        rows = rows_of(tracker({"bytes": column(b"video"), "prompts": column(np.array([entry], dtype=object))}))
        tracker.close()
    assert {row["object_id"] for row in rows} == {3}


def test_a_clip_that_fails_is_a_row_or_an_error() -> None:
    batch = {"bytes": column(b"video", b"video"), "prompts": column("[]", POINTS), "clip": column("a", "b")}
    patience = Patience(retries=1, pause_seconds=0.01)
    with FakeServer() as server:
        for rows in ("objects", "clips"):
            tracker = Tracker(server.address, rows=rows, on_failure="row", patience=patience)
            found = rows_of(tracker(batch))
            assert [(row["clip"], row["code"]) for row in found][:2] == [("a", "INVALID_ARGUMENT"), ("b", "")]
            assert "holds no prompt" in found[0]["error"]
            tracker.close()
        tracker = Tracker(server.address)
        with pytest.raises(masklet.InvalidArgument, match="holds no prompt"):
            rows_of(tracker(batch))
        with pytest.raises(masklet.InvalidArgument, match="must have prompts, and path or bytes"):
            rows_of(tracker({"image": column(b"x")}))
        tracker.close()
    with pytest.raises(masklet.InvalidArgument, match="rows: is 'frames', must be one of objects, clips"):
        Tracker("127.0.0.1:1", rows="frames")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A small Ray in processes of its own, which tells nobody of it."""
    for module in ("pandas", "ray"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'masklet[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    import ray
    import ray.data

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of many kinds
def test_ray_data_tracks_clips(ray: Any, nano_server: str, tmp_path: Path) -> None:
    """Real Ray Data, a real server: from rows to a folder of Parquet, which is read again."""
    for number in range(3):
        (tmp_path / f"{number}.mkv").write_bytes(lossless(FRAMES))
    clips = ray.data.from_items([{"path": str(tmp_path / f"{i}.mkv"), "prompts": POINTS} for i in range(3)])
    results = clips.map_batches(
        Tracker, fn_constructor_kwargs={"server": nano_server}, concurrency=1, batch_size=1, num_cpus=1
    )
    results.write_parquet(str(tmp_path / "results"))
    rows = ray.data.read_parquet(str(tmp_path / "results")).take_all()
    assert len(rows) == 3 * FRAMES
    assert {row["clip"] for row in rows} == {str(tmp_path / f"{number}.mkv") for number in range(3)}
    for row in rows:
        mask = masklet.decode_rle({"size": [row["height"], row["width"]], "counts": row["counts"]})
        assert iou(mask, truth(0, row["frame_index"])) > 0.45
        assert (row["object_id"], row["name"]) == (1, "blob")
