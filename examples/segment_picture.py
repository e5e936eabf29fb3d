"""Cut an object out of a picture: python examples/segment_picture.py PICTURE X Y OUT.png.

Start a server first (`masklet serve`).
"""

from __future__ import annotations

import sys

from PIL import Image

import masklet


def main(picture: str, x: str, y: str, out: str) -> None:
    """Give one click, get three candidates, and refine the best one."""
    with masklet.Client("127.0.0.1:50051") as client:
        found = client.segment(picture, point_coords=[[float(x), float(y)]], point_labels=[1])
        print("scores of the candidates:", [round(float(score), 3) for score in found.scores])
        # The server still holds the encoded picture, so that refining the best candidate is quick.
        assert found.logits is not None
        better = client.segment(
            found, point_coords=[[float(x), float(y)]], mask_input=found.logits[:1], multimask_output=False
        )
    masklet.cutout(Image.open(picture), better.masks[0]).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:5])
