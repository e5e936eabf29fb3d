"""sam2's predictors, computed by a masklet server: the same methods, arguments, shapes and dtypes.

    from masklet.compat import SAM2VideoPredictor

    predictor = SAM2VideoPredictor.from_pretrained("facebook/sam2.1-hiera-large")
    state = predictor.init_state("clip.mp4")
    frame_idx, obj_ids, masks = predictor.add_new_points_or_box(state, 0, obj_id=1, points=[[360, 480]], labels=[1])
    for frame_idx, obj_ids, masks in predictor.propagate_in_video(state):
        ...

A program that uses sam2 changes its imports alone. The server is the one that the variable MASKLET_SERVER names.
Without it, a server starts inside the process. A predictor can also be made of an address:
``SAM2VideoPredictor("host:50051")``.

What sam2 refuses with a ValueError or RuntimeError is refused with the same; what the server refuses is raised as a
`masklet.MaskletError`.

All but the image predictor need torch (the build for CPUs suffices), because masks are torch tensors, or made by torch.
The image predictor needs it only with `return_logits`, another `mask_threshold` than 0, `max_hole_area` or
`max_sprinkle_area`.
"""

from __future__ import annotations

from masklet.compat._build import (
    build_sam2,
    build_sam2_camera_predictor,
    build_sam2_hf,
    build_sam2_video_predictor,
    build_sam2_video_predictor_hf,
)
from masklet.compat._images.automatic import OutputMode, SAM2AutomaticMaskGenerator
from masklet.compat._images.predictor import SAM2ImagePredictor
from masklet.compat._models.model import SAM2Model
from masklet.compat._videos.camera import SAM2CameraPredictor
from masklet.compat._videos.predictor import SAM2VideoPredictor
from masklet.compat._videos.state import InferenceState

__all__ = [
    "InferenceState",
    "OutputMode",
    "SAM2AutomaticMaskGenerator",
    "SAM2CameraPredictor",
    "SAM2ImagePredictor",
    "SAM2Model",
    "SAM2VideoPredictor",
    "build_sam2",
    "build_sam2_camera_predictor",
    "build_sam2_hf",
    "build_sam2_video_predictor",
    "build_sam2_video_predictor_hf",
]
