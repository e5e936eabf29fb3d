"""Track the rabbit in the example clip from one click, and print where it is.

Start a server first (`masklet serve`), then: python examples/track_clip.py
"""

from __future__ import annotations

from pathlib import Path

import masklet

CLIP = Path(__file__).parent / "bunny.mp4"


def main() -> None:
    """Print a line for each frame, and write the mask of the first frame into a file."""
    rabbit = masklet.Prompt(object_id=1, frame_index=0, point_coords=[[360, 480]], point_labels=[1])
    with masklet.Client("127.0.0.1:50051") as client:
        for frame in client.track(CLIP, rabbit):
            found = frame.objects[1]
            print(f"{frame.pts_seconds:.2f} s: {found.area} pixels in {found.box}, IoU {found.predicted_iou:.2f}")
            if frame.frame_index == 0:
                masklet.save_mask("rabbit.png", found.mask)


if __name__ == "__main__":
    main()
