"""How programs make models: by sam2's functions, on the server of MASKLET_SERVER or one in this process."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import masklet
from masklet import compat
from masklet.compat import SAM2ImagePredictor, SAM2VideoPredictor
from masklet.compat._models import server

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
PICTURE = np.zeros((60, 80, 3), np.uint8)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, nano_server: str) -> str:
    """The variables of a program that uses nano, whichever model it asks for, on a running server."""
    monkeypatch.setenv("MASKLET_SERVER", nano_server)
    monkeypatch.setenv("MASKLET_COMPAT_MODEL", "nano")
    return nano_server


def builders() -> Iterator[Any]:
    yield lambda **more: compat.build_sam2(CONFIG, "checkpoints/sam2.1_hiera_tiny.pt", **more)
    yield lambda **more: compat.build_sam2_hf("facebook/sam2.1-hiera-tiny", **more)
    yield lambda **more: compat.build_sam2_video_predictor(CONFIG, "sam2.1_hiera_tiny.pt", **more)
    yield lambda **more: compat.build_sam2_video_predictor_hf("facebook/sam2.1-hiera-tiny", **more)
    yield lambda **more: compat.build_sam2_camera_predictor("sam2_hiera_s.yaml", "../sam2_hiera_small.pt", **more)
    yield lambda **more: SAM2VideoPredictor.from_pretrained("facebook/sam2.1-hiera-large", **more)
    yield lambda **more: SAM2ImagePredictor.from_pretrained("facebook/sam2-hiera-large", **more).model
    yield (
        lambda **more: (
            compat.SAM2AutomaticMaskGenerator.from_pretrained("facebook/sam2-hiera-large", **more).predictor.model
        )
    )


@pytest.mark.parametrize("build", list(builders()))
@pytest.mark.usefixtures("named")
def test_each_way_to_make_a_model(build: Any) -> None:
    model = build()
    assert model.name == "nano"
    assert model.image_size == 384
    assert model.device == torch.device("cpu")
    for same in (
        model.to("cuda"),
        model.to(device="cuda", dtype=torch.bfloat16),
        model.cuda(),
        model.cpu(),
        model.float(),
        model.half(),
        model.bfloat16(),
        model.eval(),
        model.train(False),
        model.requires_grad_(False),
    ):
        assert same is model
    with pytest.raises(NotImplementedError, match="cannot be trained"):
        model.train()
    with pytest.raises(AttributeError, match=r"no 'image_encoder': the model is on a masklet server"):
        _ = model.image_encoder
    with pytest.warns(UserWarning, match="device='cuda' changes nothing") as caught:
        build(device="cuda")
    assert len(caught) == 1
    assert caught[0].filename == __file__, "blamed on the program"


@pytest.mark.usefixtures("named")
def test_one_warning_names_all_that_changes_nothing() -> None:
    with pytest.warns(UserWarning, match="changes nothing") as caught:
        compat.build_sam2_video_predictor(
            CONFIG,
            None,
            "cuda:1",
            hydra_overrides_extra=["++model.fill_hole_area=0"],
            apply_postprocessing=False,
            vos_optimized=True,
            compile_image_encoder=True,
        )
    (warning,) = caught
    for name in ("device", "hydra_overrides_extra", "apply_postprocessing", "vos_optimized", "compile_image_encoder"):
        assert f"{name}=" in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compat.build_sam2_video_predictor(CONFIG, None, mode="eval", apply_postprocessing=True, vos_optimized=False)


@pytest.mark.usefixtures("named")
def test_what_programs_set_on_the_network_is_warned_of() -> None:
    predictor: Any = compat.build_sam2_video_predictor(CONFIG)
    with pytest.warns(UserWarning, match=r"SAM2VideoPredictor.fill_hole_area = 0 changes nothing"):
        predictor.fill_hole_area = 0
    assert predictor.fill_hole_area == 0


@pytest.mark.usefixtures("named")
def test_a_model_serves_the_predictor_and_connections_are_shared() -> None:
    model = compat.build_sam2(CONFIG)
    predictor = SAM2ImagePredictor(model, mask_threshold=0.0)
    assert predictor.model is model
    assert SAM2ImagePredictor(compat.build_sam2_video_predictor(CONFIG)).client is model.client
    assert SAM2ImagePredictor.from_pretrained("facebook/sam2-hiera-tiny", mask_threshold=0.5).mask_threshold == 0.5


@pytest.mark.usefixtures("named")
def test_what_programs_read_of_the_image_predictor() -> None:
    predictor = SAM2ImagePredictor.from_pretrained("facebook/sam2.1-hiera-tiny")

    def read(name: str) -> Any:  # private in sam2, and read by programs all the same
        return getattr(predictor, name)

    assert read("_orig_hw") is None
    predictor.set_image(PICTURE)
    assert read("_orig_hw") == [(60, 80)]
    predictor.set_image_batch([PICTURE, PICTURE[:30]])
    assert read("_orig_hw") == [(60, 80), (30, 80)]
    assert read("_is_image_set")
    predictor.reset_predictor()
    assert not read("_is_image_set")
    with pytest.warns(UserWarning, match="no arguments foo"):
        SAM2ImagePredictor(predictor.model, foo=1)


@pytest.mark.slow
def test_a_model_that_the_server_does_not_have(monkeypatch: pytest.MonkeyPatch, nano_server: str) -> None:
    monkeypatch.setenv("MASKLET_SERVER", nano_server)
    with pytest.raises(masklet.NotFound, match=r"has not loaded the model 'sam2.1-large', but nano; .*--model sam2.1"):
        SAM2VideoPredictor.from_pretrained("facebook/sam2.1-hiera-large")
    monkeypatch.setenv("MASKLET_SERVER", "127.0.0.1:1")
    with pytest.raises(masklet.Unavailable):
        SAM2VideoPredictor.from_pretrained("facebook/sam2.1-hiera-large")
    monkeypatch.setenv("MASKLET_SERVER", "a b")
    with pytest.raises(masklet.InvalidArgument, match="MASKLET_SERVER"):
        SAM2VideoPredictor.from_pretrained("facebook/sam2.1-hiera-large")


PROGRAM = """
import sys, threading, warnings
warnings.simplefilter("error")
import numpy as np
import torch
from masklet.compat import build_sam2, build_sam2_video_predictor, SAM2ImagePredictor

with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
    video = build_sam2_video_predictor("nano", device="cpu")
    before = threading.active_count()
    image = SAM2ImagePredictor(build_sam2("nano", device=torch.device("cpu")))
    assert image.client is video.client, "one server for both"
    image.set_image(np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8))
    masks, scores, logits = image.predict(box=[10, 10, 60, 50], multimask_output=False)
    print(masks.shape, masks.dtype)
    state = video.init_state(sys.argv[1])
    print(len(state["images"]), state["images"].shape, state["device"], state["num_frames"])
    video.add_new_points_or_box(state, 0, 1, box=[10, 10, 60, 50])
    for frame_idx, obj_ids, masks in video.propagate_in_video(state):
        print(frame_idx, obj_ids, list(masks.shape), masks.dtype)
"""


@pytest.mark.slow
def test_without_a_server_one_is_started_in_the_process(tmp_path: Path) -> None:
    """It is shared, and ends with the process, in which nothing was closed."""
    from PIL import Image

    for index in range(3):
        Image.fromarray(PICTURE + 40 * index).save(tmp_path / f"{index}.png")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASKLET_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**environment, "MASKLET_CACHE": os.environ["MASKLET_CACHE"]},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "(1, 60, 80) float32",
        "3 (3, 3, 384, 384) cpu 3",
        *(f"{index} [1] [1, 1, 60, 80] torch.float32" for index in range(3)),
    ]


@pytest.mark.slow
def test_a_checkpoint_on_this_machine_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from masklet_server.models.registry import Registry

    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(Registry.load().get("nano").checkpoint_path().read_bytes())
    monkeypatch.delenv("MASKLET_SERVER", raising=False)
    request.addfinalizer(server.close)
    assert compat.build_sam2("nano", weights, device="cpu").name == "mine"
