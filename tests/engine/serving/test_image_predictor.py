from __future__ import annotations

import numpy as np
import pytest
import torch

from masklet.errors import InvalidArgument, NotFound
from masklet_server.engine.network.network import Network
from masklet_server.engine.serving.batch import run_picture
from masklet_server.engine.serving.image_predictor import PictureCache, encode_picture, segment
from masklet_server.engine.serving.picture_jobs import PictureJob, PicturePrompt
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry
from tests.support import synthetic
from tests.support.engine import HEIGHT, WIDTH, small_network

PICTURE = synthetic.frame(0, HEIGHT, WIDTH)
CENTER = synthetic.BLOBS[0].center(0, HEIGHT, WIDTH)
CLICK = PicturePrompt(point_coords=np.array([CENTER], np.float32))


class Encodings:
    """An observer that counts encoder passes."""

    count = 0

    def on_encode(self, batch_size: int, seconds: float) -> None:
        self.count += batch_size

    def on_step(self, batch_size: int, seconds: float) -> None:
        pass

    def on_queue(self, seconds: float) -> None:
        pass


def test_a_repeated_picture_is_not_encoded_again() -> None:
    cache, seen = PictureCache(2**26), Encodings()
    first = run_picture(small_network(), PictureJob("nano", "s", PICTURE, [CLICK]), cache, seen)
    by_id = run_picture(small_network(), PictureJob("nano", "s", first.image_id, [CLICK]), cache, seen)
    by_pixels = run_picture(small_network(), PictureJob("nano", "s", PICTURE.copy(), [CLICK]), cache, seen)
    assert seen.count == 1
    assert first.image_id == by_id.image_id == by_pixels.image_id
    assert (by_id.height, by_id.width) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(by_id.results[0][0].mask, first.results[0][0].mask)


def test_the_cache_is_bounded_in_bytes_and_lets_the_oldest_go() -> None:
    one = encode_picture(small_network(), PICTURE)
    cache = PictureCache(2 * one.nbytes)
    cache.put("nano", "a", one)
    cache.put("nano", "b", one)
    assert cache.get("nano", "a") is one
    cache.put("nano", "c", one)
    assert len(cache) == 2
    assert cache.nbytes == 2 * one.nbytes
    assert cache.get("nano", "b") is None, "'a' was used more recently"
    assert cache.get("other", "a") is None


def test_a_picture_larger_than_the_cache_is_not_kept() -> None:
    cache = PictureCache(10)
    run_picture(small_network(), PictureJob("nano", "s", PICTURE, [CLICK]), cache)
    assert len(cache) == 0


def test_an_unknown_image_id_is_not_found() -> None:
    with pytest.raises(NotFound, match="send the picture again"):
        run_picture(small_network(), PictureJob("nano", "s", "?", [CLICK]), PictureCache(10))


def test_candidates_are_ranked_and_full_size() -> None:
    results = segment(small_network(), encode_picture(small_network(), PICTURE), [CLICK], multimask=True)
    scores = [candidate.predicted_iou for candidate in results[0]]
    assert scores == sorted(scores, reverse=True)
    assert {candidate.mask.shape for candidate in results[0]} == {(HEIGHT, WIDTH)}
    assert {candidate.logits.shape for candidate in results[0]} == {(small_network().logits_size,) * 2}


def test_prompts_of_different_forms_keep_their_order() -> None:
    blob = synthetic.BLOBS[1].mask(0, HEIGHT, WIDTH)
    prompts = [
        PicturePrompt(mask=blob),
        CLICK,
        PicturePrompt(box=np.array([10, 10, 60, 60], np.float32)),
        PicturePrompt(mask=synthetic.BLOBS[0].mask(0, HEIGHT, WIDTH)),
    ]
    encoded = encode_picture(small_network(), PICTURE)
    together = segment(small_network(), encoded, prompts, multimask=False)
    for prompt, (candidate,) in zip(prompts, together, strict=True):
        ((alone,),) = segment(small_network(), encoded, [prompt], multimask=False)
        assert synthetic.iou(alone.mask, candidate.mask) > 0.99


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        (PicturePrompt(point_coords=np.array([[500, 1]], np.float32)), r"prompts\[0\].points\[0\]"),
        (PicturePrompt(box=np.array([0, 0, 500, 10], np.float32)), r"prompts\[0\].box"),
        (PicturePrompt(mask=np.ones((3, 3), bool)), r"prompts\[0\].mask"),
        (PicturePrompt(mask_input=np.ones((3, 3), np.float32)), r"prompts\[0\].mask_input"),
    ],
)
def test_prompts_outside_the_picture_are_refused(prompt: PicturePrompt, field: str) -> None:
    with pytest.raises(InvalidArgument, match=field):
        segment(small_network(), encode_picture(small_network(), PICTURE), [prompt], multimask=False)


def test_bfloat16_gives_nearly_the_same_mask() -> None:
    spec = Registry.load().get("nano")
    picture = synthetic.frame(0, 300, 400)
    prompt = PicturePrompt(mask=synthetic.BLOBS[0].mask(0, 300, 400))
    full, half = (Network(build_model(spec), torch.device("cpu"), dtype) for dtype in (torch.float32, torch.bfloat16))
    ((exact,),) = segment(full, encode_picture(full, picture), [prompt], multimask=False)
    ((rounded,),) = segment(half, encode_picture(half, picture), [prompt], multimask=False)
    assert exact.mask.any()
    assert synthetic.iou(exact.mask, rounded.mask) > 0.9
