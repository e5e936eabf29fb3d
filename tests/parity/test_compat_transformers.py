"""One script with transformers' SAM 2 in process, and with masklet's over a real server with equal weights.

transformers is not among the packages that the tests install: these tests run where somebody has installed it, with
torchvision (`pip install transformers torchvision`). transformers 5.24 was compared last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from masklet.compat import transformers as ours
from tests.parity.harness import networks
from tests.support import synthetic
from tests.support.compat import serving
from tests.support.transformers import stand_in_for_operators, weights

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
stand_in_for_operators()

pytestmark = pytest.mark.filterwarnings("default")  # those of another project

SIDE = 128  # of the pictures, and of what the model sees: nobody resizes
NUM_FRAMES = 17
FRAMES = list(synthetic.clip(NUM_FRAMES, SIDE, SIDE))
Output = tuple[str, Any, torch.Tensor]
"""What was asked, what else came back, and masks at the size of the video."""


def center(blob: int, frame_index: int = 0) -> list[float]:
    return list(synthetic.BLOBS[blob].center(frame_index, SIDE, SIDE))


def box(blob: int, frame_index: int = 0) -> list[float]:
    x, y = center(blob, frame_index)
    return [x - 14, y - 14, x + 14, y + 14]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(networks("sam2.1-tiny")[0]) as running:
        yield running


def configuration() -> dict[str, Any]:
    """A small SAM 2.1 tiny, as `tests.parity.harness` has it."""
    sizes = [[SIDE // stride] * 2 for stride in (4, 8, 16)]
    return {
        "vision_config": transformers.Sam2VisionConfig(
            backbone_config=transformers.Sam2HieraDetConfig(image_size=[SIDE, SIDE]), backbone_feature_sizes=sizes
        )
    }


@pytest.fixture(scope="module")
def video_side() -> tuple[Any, Any]:
    """The model and processor of transformers for videos."""
    config = transformers.Sam2VideoConfig(
        **configuration(),
        prompt_encoder_config=transformers.Sam2VideoPromptEncoderConfig(image_size=SIDE),
        image_size=SIDE,
        memory_attention_rope_feat_sizes=[SIDE // 16] * 2,
    )
    model = transformers.Sam2VideoModel(config).eval()
    model.load_state_dict(weights(networks("sam2.1-tiny")[1].state_dict()))
    size = {"height": SIDE, "width": SIDE}
    image_processor = transformers.Sam2ImageProcessor(size=size)
    return model, transformers.Sam2VideoProcessor(image_processor, transformers.Sam2VideoVideoProcessor(size=size))


@pytest.fixture(scope="module")
def image_side() -> tuple[Any, Any]:
    """The model and processor of transformers for pictures."""
    config = transformers.Sam2Config(
        **configuration(), prompt_encoder_config=transformers.Sam2PromptEncoderConfig(image_size=SIDE)
    )
    model = transformers.Sam2Model(config).eval()
    known = weights(networks("sam2.1-tiny")[1].state_dict())
    model.load_state_dict({name: known[name] for name in model.state_dict()})
    return model, transformers.Sam2Processor(transformers.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}))


def annotate(model: Any, processor: Any) -> Iterator[Output]:
    """The notebook's steps: a click, refined, more objects at once, tracking, a correction ahead, tracking back."""

    def shown(what: str, output: Any) -> Output:
        size = [[session.video_height, session.video_width]]
        masks = processor.post_process_masks([output.pred_masks], original_sizes=size, binarize=False)[0]
        return what, (output.frame_idx, list(output.object_ids), list(session.obj_ids)), masks

    session = processor.init_video_session(video=FRAMES, inference_device="cpu", dtype=torch.float32)
    assert (session.num_frames, int(session.video_height), int(session.video_width)) == (NUM_FRAMES, SIDE, SIDE)
    processor.add_inputs_to_inference_session(
        inference_session=session, frame_idx=0, obj_ids=1, input_points=[[[center(0)]]], input_labels=[[[1]]]
    )
    yield shown("a click", model(inference_session=session, frame_idx=0))
    processor.add_inputs_to_inference_session(
        inference_session=session,
        frame_idx=0,
        obj_ids=1,
        input_points=[[[[3.0, 3.0]]]],
        input_labels=[[[0]]],
        clear_old_inputs=False,
    )
    yield shown("refined", model(inference_session=session, frame_idx=0))
    processor.add_inputs_to_inference_session(
        inference_session=session, frame_idx=0, obj_ids=[5, 3], input_boxes=[[box(1), [5, 5, 40, 40]]]
    )
    yield shown("two boxes", model(inference_session=session, frame_idx=0))
    for output in model.propagate_in_video_iterator(session):
        yield shown("onwards", output)
    yield shown("one frame again", model(inference_session=session, frame_idx=5))
    processor.add_inputs_to_inference_session(
        inference_session=session, frame_idx=9, obj_ids=[7], input_points=[[[center(2, 9)]]], input_labels=[[[1]]]
    )
    yield shown("a late object", model(inference_session=session, frame_idx=9))
    for output in model.propagate_in_video_iterator(session, start_frame_idx=9, max_frame_num_to_track=3, reverse=True):
        yield shown("back", output)
    session.reset_inference_session()
    assert session.obj_ids == []
    processor.add_inputs_to_inference_session(
        inference_session=session,
        frame_idx=2,
        obj_ids=1,
        input_boxes=[[box(0, 2)]],
        input_points=[[[[3.0, 3.0]]]],
        input_labels=[[[0]]],
    )
    for output in model.propagate_in_video_iterator(session, start_frame_idx=2, max_frame_num_to_track=2):
        yield shown("anew", output)


def stream(model: Any, processor: Any) -> Iterator[Output]:
    """Frames one by one, as the documentation shows it."""
    session = processor.init_video_session(inference_device="cpu", dtype=torch.float32)
    for index, frame in enumerate(FRAMES):
        inputs = processor(images=frame, device="cpu", return_tensors="pt")
        if index == 0:
            processor.add_inputs_to_inference_session(
                inference_session=session,
                frame_idx=0,
                obj_ids=[1, 2],
                input_points=[[[center(0)], [center(1)]]],
                input_labels=[[[1], [1]]],
                original_size=inputs.original_sizes[0],
            )
        output = model(inference_session=session, frame=inputs.pixel_values[0])
        masks = processor.post_process_masks([output.pred_masks], original_sizes=inputs.original_sizes, binarize=False)[
            0
        ]
        yield "a frame", (output.frame_idx, list(output.object_ids), list(session.obj_ids)), masks


def compare(theirs: Iterator[Output], found: Iterator[Output], *, atol: float, equal: float = 0.999) -> int:
    """Masks agree on 99.9 % of pixels: transformers keeps memories in float32, sam2 and masklet in bfloat16."""
    count, foreground = 0, 0.0
    for (what, expected_rest, expected), (_, rest, masks) in zip(theirs, found, strict=True):
        where = f"{count}: {what}"
        assert rest == expected_rest, where
        assert (masks.shape, masks.dtype) == (expected.shape, expected.dtype), where
        if masks.dtype != torch.bool:
            assert (masks - expected).abs().max() <= atol, where
        assert ((masks > 0) == (expected > 0)).float().mean() >= equal, where
        foreground += (expected > 0).float().mean().item()
        count += 1
    assert foreground > 0.1, "hardly anything but background was compared"
    return count


@pytest.mark.parametrize(("script", "least"), [(annotate, NUM_FRAMES + 11), (stream, NUM_FRAMES)])
def test_videos(
    script: Callable[[Any, Any], Iterator[Output]], least: int, video_side: tuple[Any, Any], address: str
) -> None:
    with torch.inference_mode():
        model, processor = ours.Sam2VideoModel(address), ours.Sam2VideoProcessor()
        assert compare(script(*video_side), script(model.to("cpu"), processor), atol=1.0) >= least


def test_a_mask_prompt(video_side: tuple[Any, Any], address: str) -> None:
    """sam2 remembers the prompt's mask at low resolution, transformers at that of the model."""

    def script(model: Any, processor: Any) -> Iterator[Output]:
        session = processor.init_video_session(video=FRAMES[:3])
        processor.add_inputs_to_inference_session(
            session, frame_idx=0, obj_ids=1, input_masks=synthetic.BLOBS[0].mask(0, SIDE, SIDE)
        )
        yield "a mask", None, model(session, frame_idx=0).pred_masks
        tracked = [output.pred_masks for output in model.propagate_in_video_iterator(session)][1:]
        yield "tracked", len(tracked), torch.cat(tracked) > 0

    with torch.inference_mode():
        compare(
            script(*video_side), script(ours.Sam2VideoModel(address), ours.Sam2VideoProcessor()), atol=1e-3, equal=0.95
        )


def pictures(model: Any, processor: Any) -> Iterator[Output]:
    """The documentation's steps for pictures."""

    def shown(what: str, inputs: Any, outputs: Any) -> Iterator[Output]:
        masks = processor.post_process_masks(outputs.pred_masks.cpu(), inputs["original_sizes"])
        for one in masks:
            yield what, None, one
        yield f"{what}: scores", None, outputs.iou_scores
        yield f"{what}: logits", None, outputs.pred_masks

    point = {"input_points": [[[center(0)]]], "input_labels": [[[1]]]}
    inputs = processor(images=FRAMES[0], **point, return_tensors="pt").to("cpu")
    outputs = model(**inputs)
    yield from shown("a click", inputs, outputs)
    best = outputs.pred_masks[:, :, torch.argmax(outputs.iou_scores.squeeze())]
    yield from shown("one mask", inputs, model(**inputs, multimask_output=False))
    yield from shown("refined", inputs, model(**inputs, input_masks=best, multimask_output=False))

    embeddings = model.get_image_embeddings(inputs["pixel_values"])
    inputs = processor(images=FRAMES[0], input_boxes=[[box(0), box(1), [5, 5, 40, 40]]], return_tensors="pt")
    inputs.pop("pixel_values")
    inputs.update({"image_embeddings": embeddings})
    yield from shown("boxes", inputs, model(**inputs, multimask_output=False))

    points = [[[center(0)], [center(1)]], [[center(2, 7)], [center(1, 7)]]]
    labels = [[[1], [1]], [[1], [1]]]
    inputs = processor(images=FRAMES[0:8:7], input_points=points, input_labels=labels, return_tensors="pt")
    yield from shown("two pictures", inputs, model(**inputs))
    inputs = processor(
        images=FRAMES[0],
        input_boxes=[[box(0)]],
        input_points=[[[[3.0, 3.0]]]],
        input_labels=[[[0]]],
        return_tensors="pt",
    )
    yield from shown("a box and a point", inputs, model(**inputs, multimask_output=False))


def test_pictures(image_side: tuple[Any, Any], address: str) -> None:
    with torch.no_grad():
        mine = pictures(ours.Sam2Model(address).to("cpu"), ours.Sam2Processor.from_pretrained("facebook/sam2"))
        assert compare(pictures(*image_side), mine, atol=2e-3) == 19


def test_masks_that_must_not_overlap(image_side: tuple[Any, Any]) -> None:
    masks = [torch.from_numpy(np.random.default_rng(2).normal(0, 4, (3, 1, 8, 8)).astype(np.float32))]
    for binarize in (True, False):
        options: dict[str, Any] = {"apply_non_overlapping_constraints": True, "binarize": binarize}
        (expected,) = image_side[1].post_process_masks([masks[0].clone()], [[20, 30]], **options)
        (found,) = ours.Sam2Processor().post_process_masks(masks, [[20, 30]], **options)
        assert torch.equal(found, expected)
