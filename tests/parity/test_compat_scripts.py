"""Programs in the shape of sam2's own notebooks, run with sam2 and with masklet: nothing but the imports differs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from masklet.compat._models import server
from tests.parity.harness import HEIGHT, WIDTH, center, networks
from tests.parity.test_compat_automatic import generator_class
from tests.parity.test_image_predictor import of_its_size, predictor_class
from tests.support import synthetic
from tests.support.compat import serving

__all__ = ["generator_class", "predictor_class"]  # the fixtures

pytestmark = [
    # Upstream's hole filling needs its CUDA extension, and warns where that was not built; masklet skips it there, too.
    pytest.mark.filterwarnings("ignore:cannot import name '_C' from 'sam2':UserWarning"),
    # The notebooks' own autocast, on a machine without CUDA.
    pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning"),
    # masklet's word on what these programs give.
    pytest.mark.filterwarnings("ignore:masklet.compat. .*changes nothing:UserWarning"),
]

VIDEO = """
import os
import numpy as np
import torch

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.autocast("cuda", dtype=torch.bfloat16).__enter__()

from sam2.build_sam import build_sam2_video_predictor

sam2_checkpoint = "../checkpoints/sam2.1_hiera_large.pt"
model_cfg = "configs/sam2.1/sam2.1_hiera_l.yaml"
predictor = build_sam2_video_predictor(model_cfg, sam2_checkpoint, device=device)

frame_names = [p for p in os.listdir(video_dir) if os.path.splitext(p)[-1] in [".jpg", ".jpeg", ".JPG", ".JPEG"]]
frame_names.sort(key=lambda p: int(os.path.splitext(p)[0]))

inference_state = predictor.init_state(video_path=video_dir)
assert len(inference_state["images"]) == len(frame_names)
predictor.reset_state(inference_state)
prompts = {}
ann_frame_idx = 0
ann_obj_id = 1
points = np.array([click], dtype=np.float32)
labels = np.array([1], np.int32)
prompts[ann_obj_id] = points, labels
_, out_obj_ids, out_mask_logits = predictor.add_new_points_or_box(
    inference_state=inference_state, frame_idx=ann_frame_idx, obj_id=ann_obj_id, points=points, labels=labels,
)
results["prompt"] = (out_mask_logits[0] > 0.0).cpu().numpy()
x, y = other_click
box = np.array([x - 20, y - 20, x + 20, y + 20], dtype=np.float32)
_, out_obj_ids, out_mask_logits = predictor.add_new_points_or_box(
    inference_state=inference_state, frame_idx=ann_frame_idx, obj_id=4, box=box,
)
results["box"] = (out_mask_logits[1] > 0.0).cpu().numpy()
video_segments = {}
for out_frame_idx, out_obj_ids, out_mask_logits in predictor.propagate_in_video(inference_state):
    video_segments[out_frame_idx] = {
        out_obj_id: (out_mask_logits[i] > 0.0).cpu().numpy() for i, out_obj_id in enumerate(out_obj_ids)
    }
for out_frame_idx in range(0, len(frame_names), 3):
    for out_obj_id, out_mask in video_segments[out_frame_idx].items():
        results[f"{out_frame_idx}: {out_obj_id}"] = out_mask
height, width = inference_state["video_height"], inference_state["video_width"]
assert results["prompt"].shape == (1, height, width)
"""

PICTURE = """
import numpy as np
import torch
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16):
    sam2_model = build_sam2("configs/sam2.1/sam2.1_hiera_l.yaml", "../checkpoints/sam2.1_hiera_large.pt", device="cpu")
    sam2_model.to("cpu").eval()
    predictor = fit(SAM2ImagePredictor(sam2_model))
    predictor.set_image(image)
    assert predictor._orig_hw == [image.shape[:2]]
    input_point = np.array([click])
    input_label = np.array([1])
    masks, scores, logits = predictor.predict(
        point_coords=input_point, point_labels=input_label, multimask_output=True,
    )
    sorted_ind = np.argsort(scores)[::-1]
    masks, scores, logits = masks[sorted_ind], scores[sorted_ind], logits[sorted_ind]
    results["three"] = masks
    mask_input = logits[np.argmax(scores), :, :]
    masks, scores, _ = predictor.predict(
        point_coords=np.array([click, [5, 5]]), point_labels=np.array([1, 0]), mask_input=mask_input[None, :, :],
        multimask_output=False,
    )
    results["refined"] = masks
    x, y = click
    input_boxes = np.array([[x - 30, y - 28, x + 30, y + 28], [100, 60, 160, 110]])
    masks, scores, _ = predictor.predict(point_coords=None, point_labels=None, box=input_boxes, multimask_output=False)
    results["boxes"] = masks
"""

AUTOMATIC = """
import numpy as np
from sam2.build_sam import build_sam2
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

sam2_checkpoint = "../checkpoints/sam2.1_hiera_large.pt"
model_cfg = "configs/sam2.1/sam2.1_hiera_l.yaml"
sam2 = build_sam2(model_cfg, sam2_checkpoint, device="cpu", apply_postprocessing=False)
mask_generator = SAM2AutomaticMaskGenerator(
    model=sam2, points_per_side=6, points_per_batch=128, pred_iou_thresh=0.3, stability_score_thresh=0.7,
    stability_score_offset=0.7, crop_n_layers=0, box_nms_thresh=0.7, crop_n_points_downscale_factor=2, use_m2m=True,
)
fit(mask_generator.predictor)
for index, mask in enumerate(sorted(mask_generator.generate(image), key=lambda mask: mask["area"], reverse=True)[:9]):
    results[str(index)] = mask["segmentation"]
"""


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with serving(networks("nano")[0], max_objects=16) as address:
        yield {"MASKLET_SERVER": address, "MASKLET_COMPAT_MODEL": "nano"}
        server.close()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a notebook's reader has: a folder of frames, a picture, and places to click."""
    folder = tmp_path_factory.mktemp("frames")
    for index, picture in enumerate(synthetic.clip(17, HEIGHT, WIDTH)):
        Image.fromarray(picture).save(folder / f"{index:05d}.jpg", "PNG")
    return {
        "video_dir": str(folder),
        "image": synthetic.frame(0, HEIGHT, WIDTH),
        "click": list(center(0)),
        "other_click": list(center(1)),
    }


def run(program: str, given: dict[str, Any], fit: Any) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with torch.autocast("cuda", enabled=False):  # gives back what the program sets
        level = torch.autocast_increment_nesting()
        exec(compile(program, "program", "exec"), {"results": results, "fit": fit, **given})
        # Programs enter autocast and never leave. While torch thinks that they are inside, it keeps the casts of
        # weights, so that whatever trains in this process later would compute with old weights.
        while torch.autocast_decrement_nesting() >= level:
            pass
    torch.clear_autocast_cache()
    return results


def built(*args: Any, **kwargs: Any) -> Any:
    """sam2's function for a model, without the checkpoint that nobody has here."""
    return networks("nano")[1]


@pytest.mark.parametrize(
    ("program", "count"), [(VIDEO, 14), (PICTURE, 3), (AUTOMATIC, 5)], ids=["video", "image", "auto"]
)
@pytest.mark.usefixtures("generator_class")
def test_only_the_imports_change(
    program: str, count: int, given: dict[str, Any], environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sam2.build_sam

    # `generator_class` stands in for the CUDA extension. The video predictor must not fill holes with it: masklet,
    # which found no extension, does not.
    monkeypatch.setattr(networks("nano")[1], "fill_hole_area", 0)
    with mock.patch.multiple(sam2.build_sam, build_sam2=built, build_sam2_video_predictor=built):
        expected = run(program, given, of_its_size)
    lines = program.splitlines(keepends=True)
    moved = [
        f"from masklet.compat import {line.split()[-1]}\n" if line.startswith("from sam2") else line for line in lines
    ]
    assert moved != lines
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = run("".join(moved), given, lambda predictor: predictor)
    assert found.keys() == expected.keys()
    assert len(found) >= count
    for name, masks in expected.items():
        assert found[name].shape == masks.shape, name
        assert found[name].dtype == masks.dtype, name
        assert (found[name] == masks).mean() >= 0.9999, name
    assert any(np.asarray(masks).any() for masks in expected.values())
