"""Correct a frame after it was tracked, and see the frames change: python examples/refine.py [ADDRESS [FRAMES]].

Start a server first (`masklet serve`). When the loop has seen the last frame, it corrects an earlier one. The frames
from there on come once more, with a higher `revision`.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import av
import numpy as np

import masklet

CLIP = Path(__file__).parent / "bunny.mp4"
RABBIT = masklet.Prompt(object_id=1, frame_index=0, point_coords=[[360, 480]], point_labels=[1])


def main(address: str = "127.0.0.1:50051", frames: str = "24") -> None:
    """Print the rabbit's area on each frame, before and after the correction."""
    count = int(frames)
    corrected = max(count - 4, 1)
    # Only the first frames of the clip, as pictures, so that this is quick.
    with av.open(str(CLIP)) as container:
        decoded = itertools.islice(container.decode(video=0), count)
        pictures = [picture.to_ndarray(format="rgb24").astype(np.uint8) for picture in decoded]
    before: dict[int, int] = {}
    after: dict[int, int] = {}
    # With a correction window the server waits for this loop, also at the end of the clip.
    with masklet.Client(address) as client, client.track(pictures, RABBIT, correction_window=64) as tracking:
        for frame in tracking:
            areas = after if frame.revision else before
            areas[frame.frame_index] = frame.objects[1].area
            if frame.frame_index == count - 1 and not frame.revision:
                # The grass and the cave beside the rabbit do not belong to it.
                clicks = [[360, 480], [640, 420], [480, 350]]
                tracking.prompt(masklet.Prompt(1, corrected, point_coords=clicks, point_labels=[1, 0, 0]))
    for index, area in before.items():
        print(f"frame {index}: {area} pixels" + (f", then {after[index]}" if index in after else ""))


if __name__ == "__main__":
    main(*sys.argv[1:])
