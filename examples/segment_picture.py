"""Cut an object out of a picture: python examples/segment_picture.py [PICTURE X,Y [OUT.png [ADDRESS]]].

Start a server first (`masklet serve`). Without a picture it takes the first frame of the example clip.
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
from PIL import Image

import masklet

CLIP = Path(__file__).parent / "bunny.mp4"


def first_frame() -> Image.Image:
    """The first frame of the example clip."""
    with av.open(str(CLIP)) as container:
        return Image.fromarray(next(container.decode(video=0)).to_ndarray(format="rgb24"))


def main(picture: str = "", click: str = "360,480", out: str = "cutout.png", address: str = "127.0.0.1:50051") -> None:
    """Give one click, get three candidates, and refine the best one."""
    image = Image.open(picture) if picture else first_frame()
    x, y = (float(part) for part in click.split(","))
    with masklet.Client(address) as client:
        found = client.segment(image, point_coords=[[x, y]], point_labels=[1])
        print("scores of the candidates:", [round(float(score), 3) for score in found.scores])
        # The server still holds the encoded picture, so that refining the best candidate is quick.
        assert found.logits is not None
        better = client.segment(found, point_coords=[[x, y]], mask_input=found.logits[:1], multimask_output=False)
    masklet.cutout(image, better.masks[0]).save(out)
    print(f"{int(better.masks[0].sum())} pixels are in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:5])
