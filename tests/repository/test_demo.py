"""The first thing a new user runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import masklet

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_leaves_what_it_promises(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shown = subprocess.run(
        [REPOSITORY / "scripts" / "demo", out], capture_output=True, text=True, timeout=800, check=True
    )
    assert "132 frames in" in shown.stdout
    assert str(out) in shown.stdout
    with av.open(str(out / "overlay.mp4")) as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == 132
    masks = sorted((out / "masks").glob("*.png"))  # and objects/ has those of frames in which they overlap
    assert [path.name for path in masks] == [f"{i:05d}.png" for i in range(132)]
    result = json.loads((out / "result.json").read_text())
    assert len(result["frames"]) == 132
    last = result["frames"][-1]
    indexed = np.asarray(Image.open(masks[-1]))
    for found in last["objects"]:
        mask = masklet.decode_rle(found["rle"])
        assert mask.sum() == found["area"]
        # Where masks overlap, a pixel of the indexed picture names one of them.
        assert mask[indexed == found["object_id"]].all()
    assert {found["object_id"] for found in last["objects"]} == {1, 2}
