"""sam2's predictors, computed by a masklet server: the same methods, arguments, shapes and dtypes.

    from masklet.compat import SAM2VideoPredictor

    predictor = SAM2VideoPredictor("127.0.0.1:50051", model="sam2.1-large")
    state = predictor.init_state("clip.mp4")
    frame_idx, obj_ids, masks = predictor.add_new_points_or_box(state, 0, obj_id=1, points=[[360, 480]], labels=[1])
    for frame_idx, obj_ids, masks in predictor.propagate_in_video(state):
        ...

A program that uses ``sam2.sam2_video_predictor`` or ``sam2.sam2_image_predictor`` changes only its imports and the line
that makes the predictor. What sam2 refuses with a ValueError or RuntimeError is refused with the same; what the server
refuses is raised as a `masklet.MaskletError`.

The video predictor needs torch (the build for CPUs suffices), because its masks are torch tensors. The image predictor
needs it only with `return_logits` or another `mask_threshold` than 0.
"""

from __future__ import annotations

from masklet.compat._image import SAM2ImagePredictor
from masklet.compat._state import InferenceState
from masklet.compat._video import SAM2VideoPredictor

__all__ = ["InferenceState", "SAM2ImagePredictor", "SAM2VideoPredictor"]
