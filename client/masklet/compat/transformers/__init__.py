"""transformers' names for SAM 2, computed by a masklet server: the documented ways of use, with the same masks.

    from masklet.compat.transformers import Sam2VideoModel, Sam2VideoProcessor

    model = Sam2VideoModel.from_pretrained("facebook/sam2.1-hiera-large")
    processor = Sam2VideoProcessor.from_pretrained("facebook/sam2.1-hiera-large")
    session = processor.init_video_session(video=frames)
    processor.add_inputs_to_inference_session(
        session, frame_idx=0, obj_ids=1, input_points=[[[[360, 480]]]], input_labels=[[[1]]]
    )
    for output in model.propagate_in_video_iterator(session):
        masks = processor.post_process_masks([output.pred_masks], [[session.video_height, session.video_width]])[0]

`masklet.compat` says which server computes. transformers itself is not needed; torch is.
"""

from __future__ import annotations

from masklet.compat.transformers._images import Sam2ImageSegmentationOutput, Sam2Model, Sam2Processor
from masklet.compat.transformers._inputs import ModelInputs, Picture, Pictures
from masklet.compat.transformers._session import Frames, GivenPrompt, Sam2VideoInferenceSession
from masklet.compat.transformers._videos import Sam2VideoModel, Sam2VideoProcessor, Sam2VideoSegmentationOutput

__all__ = [
    "Frames",
    "GivenPrompt",
    "ModelInputs",
    "Picture",
    "Pictures",
    "Sam2ImageSegmentationOutput",
    "Sam2Model",
    "Sam2Processor",
    "Sam2VideoInferenceSession",
    "Sam2VideoModel",
    "Sam2VideoProcessor",
    "Sam2VideoSegmentationOutput",
]
