"""sam2's predictors with a masklet server behind them: the same methods, arguments, shapes and dtypes.

    from masklet.compat import SAM2VideoPredictor

    predictor = SAM2VideoPredictor("127.0.0.1:50051", model="sam2.1-large")
    state = predictor.init_state("clip.mp4")
    frame_idx, obj_ids, masks = predictor.add_new_points_or_box(state, 0, obj_id=1, points=[[360, 480]], labels=[1])
    for frame_idx, obj_ids, masks in predictor.propagate_in_video(state):
        ...

A program made for ``sam2.sam2_video_predictor`` and ``sam2.sam2_image_predictor`` changes its imports and how it makes
the predictor. What is refused by sam2 as ValueError or RuntimeError still is; whatever the server refuses is a
`masklet.MaskletError`.

Video needs torch (the build for CPUs will do), because masks are torch tensors there; pictures need it only with
`return_logits`.
"""

from __future__ import annotations

from masklet.compat._image import SAM2ImagePredictor
from masklet.compat._state import InferenceState
from masklet.compat._video import SAM2VideoPredictor

__all__ = ["InferenceState", "SAM2ImagePredictor", "SAM2VideoPredictor"]
