"""transformers' names over a real server: the same masks as sam2's names give there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import masklet
from masklet.compat import SAM2CameraPredictor, SAM2ImagePredictor, SAM2VideoPredictor
from masklet.compat.transformers import Sam2Model, Sam2Processor, Sam2VideoModel, Sam2VideoProcessor
from tests.support.e2e import HEIGHT, WIDTH, box, center, frames, truth

SIZE = [[HEIGHT, WIDTH]]
FRAMES = list(frames()[:5])


@pytest.fixture
def model(nano_server: str) -> Sam2VideoModel:
    return Sam2VideoModel(nano_server)


@pytest.fixture
def processor() -> Sam2VideoProcessor:
    return Sam2VideoProcessor.from_pretrained("facebook/sam2.1-hiera-tiny")


def sized(masks: torch.Tensor) -> torch.Tensor:
    (found,) = Sam2VideoProcessor().post_process_masks([masks], SIZE, binarize=False)
    return found


def click(blob: int) -> dict[str, Any]:
    return {"input_points": [[[list(center(blob))]]], "input_labels": [[[1]]]}


def test_a_video(model: Sam2VideoModel, processor: Sam2VideoProcessor, nano_server: str) -> None:
    session = processor.init_video_session(video=np.stack(FRAMES), inference_device="cuda", dtype=torch.bfloat16)
    assert (session.num_frames, session.video_height, session.video_width) == (5, HEIGHT, WIDTH)
    processor.add_inputs_to_inference_session(session, frame_idx=0, obj_ids=7, **click(0))
    first = model(inference_session=session, frame_idx=0)
    processor.add_inputs_to_inference_session(session, frame_idx=2, obj_ids=[9], input_masks=truth(1, 2)[None])

    predictor = SAM2VideoPredictor(nano_server)
    state = predictor.init_state(FRAMES)
    expected = predictor.add_new_points_or_box(state, 0, 7, [list(center(0))], [1])[2]
    assert (first.object_ids, first.frame_idx) == ([7], 0)
    torch.testing.assert_close(sized(first.pred_masks), expected)
    predictor.add_new_mask(state, 2, 9, truth(1, 2))
    found = list(model.propagate_in_video_iterator(session, max_frame_num_to_track=3))
    for output, (frame_idx, obj_ids, masks) in zip(
        found, predictor.propagate_in_video(state, max_frame_num_to_track=3), strict=True
    ):
        assert (output.frame_idx, output.object_ids) == (frame_idx, obj_ids)
        torch.testing.assert_close(sized(output.pred_masks), masks)
        assert output.object_score_logits.shape == (2, 1)
    assert [output.frame_idx for output in found] == [0, 1, 2, 3]
    assert (session.obj_ids, session.obj_id_to_idx(9), session.obj_idx_to_id(0)) == ([7, 9], 1, 7)
    session.reset_tracking_data()
    assert session.get_obj_num() == 0
    with pytest.raises(ValueError, match="No objects are provided"):
        model(session, 0)
    session.close()


def test_frames_one_by_one(model: Sam2VideoModel, processor: Sam2VideoProcessor, nano_server: str) -> None:
    camera = SAM2CameraPredictor(nano_server)
    camera.load_first_frame(FRAMES[0])
    camera.add_new_points(0, 1, [list(center(0))], [1])

    session = processor.init_video_session()
    assert not session.num_frames
    for index, frame in enumerate(FRAMES):
        inputs = processor(images=frame, device="cuda", return_tensors="pt").to("cuda")
        if index == 0:
            with pytest.raises(ValueError, match="original_size must be provided"):
                processor.add_inputs_to_inference_session(session, 0, 1, **click(0))
            processor.add_inputs_to_inference_session(session, 0, 1, **click(0), original_size=inputs.original_sizes[0])
        output = model(inference_session=session, frame=inputs.pixel_values[0])
        assert output.frame_idx == index
        if index:
            torch.testing.assert_close(sized(output.pred_masks), camera.track(frame)[1])
    assert session.num_frames == len(FRAMES)
    processor.add_inputs_to_inference_session(session, 1, 1, **click(0))
    with pytest.raises(ValueError, match="frame 1 has come already"):
        model(session, frame=FRAMES[0])
    session.close()
    camera.reset_state()


def pictures(model: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    processor = Sam2Processor()
    inputs = processor(images=[FRAMES[0]], **click(0), return_tensors="pt").to("cuda")
    outputs = model(**inputs)
    yield outputs.iou_scores, outputs.pred_masks
    inputs = processor(images=FRAMES[0], input_boxes=[[box(0), box(1)]], return_tensors="pt")
    inputs.pop("pixel_values")
    outputs = model(**inputs, image_embeddings=outputs.image_embeddings, multimask_output=False)
    yield outputs.iou_scores, outputs.pred_masks


def test_pictures(nano_server: str) -> None:
    predictor = SAM2ImagePredictor(nano_server)
    predictor.set_image(FRAMES[0])
    expected = [
        predictor.predict([list(center(0))], [1]),
        predictor.predict(box=[box(0), box(1)], multimask_output=False),
    ]
    for (scores, logits), (_, expected_scores, expected_logits) in zip(
        pictures(Sam2Model(nano_server)), expected, strict=True
    ):
        np.testing.assert_allclose(scores.reshape(expected_scores.shape), expected_scores, atol=1e-6)
        np.testing.assert_allclose(logits.clip(-32, 32).reshape(expected_logits.shape), expected_logits, atol=1e-5)


def test_from_pretrained(monkeypatch: pytest.MonkeyPatch, nano_server: str) -> None:
    monkeypatch.setenv("MASKLET_SERVER", nano_server)
    monkeypatch.setenv("MASKLET_COMPAT_MODEL", "nano")
    with pytest.warns(UserWarning, match="device_map='auto' changes nothing"):
        model = Sam2VideoModel.from_pretrained("facebook/sam2.1-hiera-tiny", device_map="auto")
    assert model.to("cuda", dtype=torch.bfloat16) is model
    assert (model.name, model.dtype) == ("nano", torch.float32)


def test_what_is_refused(model: Sam2VideoModel, processor: Sam2VideoProcessor, nano_server: str) -> None:
    session = processor.init_video_session(video=FRAMES)

    def add(match: str, **arguments: Any) -> None:
        with pytest.raises(ValueError, match=match):
            processor.add_inputs_to_inference_session(session, 0, **{"obj_ids": 1, **arguments})

    add("must be provided together", input_points=[[[[1, 1]]]])
    add("at least one of points")
    add("masks cannot be provided together", input_masks=truth(0), **click(0))
    add("cannot add box without clearing", input_boxes=[[[1, 1, 9, 9]]], clear_old_inputs=False)
    add(r"object ids \(2\) does not match number of points \(1\)", obj_ids=[1, 2], **click(0))
    add("nested list with 4 levels, not 2", input_points=[[1, 1]], input_labels=[[[1]]])
    add(r"must be \[240, 320\]", input_masks=truth(0)[:9])
    with pytest.raises(ValueError, match="Cannot determine the starting frame"):
        next(model.propagate_in_video_iterator(session))
    processor.add_inputs_to_inference_session(session, 0, 1, **click(0))
    with pytest.raises(ValueError, match="frame_idx must be provided"):
        model(session)
    with pytest.raises(ValueError, match="has no frames"):
        processor.init_video_session(video=[])
    live = processor.init_video_session()
    processor.add_inputs_to_inference_session(live, 0, 1, **click(0), original_size=(HEIGHT, WIDTH))
    with pytest.raises(ValueError, match="this session has no video"):
        model(live, frame_idx=0)
    with pytest.raises(ValueError, match="must be 0: frames come in order"):
        model(live, 3, FRAMES[0])
    with pytest.raises(TypeError, match="tensor of float32"):
        model(live, frame=torch.zeros(3, 8, 8))
    with pytest.raises(TypeError, match="must come from a processor of masklet"):
        Sam2Model(nano_server)(pixel_values=torch.zeros(1, 3, 8, 8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Exactly one of pixel_values"):
        Sam2Model(nano_server)()
    with pytest.raises(masklet.InvalidArgument, match="there is no prompt"):
        Sam2Model(nano_server)(**Sam2Processor()(images=FRAMES[0]))
    with pytest.raises(ValueError, match="Either images or original_sizes"):
        processor()
    with pytest.raises(AttributeError, match="the inputs have no 'foo', but pixel_values"):
        _ = processor(images=FRAMES[0]).foo
