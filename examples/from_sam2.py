"""The video example of sam2's README with another import: the masks come from a masklet server.

    python examples/from_sam2.py [VIDEO X,Y [MODEL]]

It uses the server that MASKLET_SERVER names, or starts one. MODEL is sam2's name, such as
facebook/sam2.1-hiera-large, or one of masklet's. Needs torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from masklet.compat import SAM2VideoPredictor  # from sam2.sam2_video_predictor import SAM2VideoPredictor

CLIP = str(Path(__file__).parent / "bunny.mp4")


def main(video: str = CLIP, click: str = "360,480", model: str = "nano") -> None:
    """Prompt, look, propagate, and print a line for each frame."""
    predictor = SAM2VideoPredictor.from_pretrained(model)

    with torch.inference_mode():
        state = predictor.init_state(video)

        # add new prompts and instantly get the output on the same frame
        x, y = (float(part) for part in click.split(","))
        frame_idx, object_ids, masks = predictor.add_new_points_or_box(
            state, frame_idx=0, obj_id=1, points=[[x, y]], labels=[1]
        )
        print(f"frame {frame_idx}, prompted: {int((masks[0] > 0).sum())} pixels of {list(masks.shape)}")

        # propagate the prompts to get masklets throughout the video
        for frame_idx, object_ids, masks in predictor.propagate_in_video(state):
            areas = (masks > 0).flatten(1).sum(1).tolist()
            print(f"frame {frame_idx}: {dict(zip(object_ids, areas, strict=True))}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
