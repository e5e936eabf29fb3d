"""``NAME@SIZE`` is upstream's predictor built for that size."""

from __future__ import annotations

import pytest
import torch
from sam2.build_sam import build_sam2_video_predictor

from benchmarks.sides import Reference, normalized
from masklet_server.models.build import build_reference
from masklet_server.models.registry import Registry
from tests.parity.harness import HEIGHT, WIDTH, Play, prompts
from tests.support import synthetic

pytestmark = pytest.mark.filterwarnings("ignore:cannot import name '_C' from 'sam2':UserWarning")

KINDS = [kind for kind, _ in prompts(1)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_prompt_at_half_the_side(kind: str) -> None:
    play = Play("sam2.1-tiny@512", 4)
    assert play.ours.network.image_size == play.reference.predictor.image_size == 512
    for prompt in dict(prompts(1))[kind]:
        play.prompt(prompt)
    play.propagate(0, 4)
    assert play.frames_compared == set(range(4))
    assert play.foreground > 0, "nothing but background was compared"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("model", "num_frames", "weights"),
    [
        ("nano@64", 12, {}),
        ("nano@224", 18, {}),  # a grid of 14, and memories and pointers all full
        ("nano@576", 4, {}),  # larger than it was trained for
        ("sam2.1-tiny@96", 18, {}),  # windows of 14 and 7 that are larger than the whole grid
        ("sam2.1-tiny@352", 4, {}),  # no power of two anywhere
        ("sam2.0-tiny@320", 4, {}),
        ("sam2.1-base-plus@160", 4, {"seed": 9}),  # another trunk
    ],
)
def test_other_sizes(model: str, num_frames: int, weights: dict[str, int]) -> None:
    play = Play(model, num_frames, correction_window=num_frames, **weights)
    play.prompt(dict(prompts(1))["point"][0])
    play.prompt(dict(prompts(2))["mask"][0])
    play.propagate(0, num_frames - 1)
    play.remove(2)
    play.propagate(num_frames - 1, num_frames)
    assert play.frames_compared == set(range(num_frames))
    assert play.foreground > 0


@pytest.mark.parametrize(("name", "size"), [("sam2.1-tiny", 512), ("sam2.1-tiny", 224)])
def test_our_reference_is_what_upstreams_own_builder_makes_of_that_size(name: str, size: int) -> None:
    """Upstream's way is an override of its configuration; the checkpoint is the same, and positions are resampled."""
    spec = Registry.load().get(f"{name}@{size}")
    ours = build_reference(spec, seed=7)
    theirs = build_sam2_video_predictor(spec.config, device="cpu", hydra_overrides_extra=[f"++model.image_size={size}"])
    assert theirs.image_size == size
    theirs.load_state_dict(build_reference(Registry.load().get(name), seed=7).state_dict())
    frames = normalized(synthetic.clip(3, size, size))
    prompt = dict(prompts(1))["box"][0]
    both = [Reference(predictor, frames, HEIGHT, WIDTH) for predictor in (ours, theirs)]
    first = [side.prompt(prompt) for side in both]
    assert torch.equal(*first)
    one, other = (side.propagate(0, 3) for side in both)
    assert one.keys() == other.keys()
    for key, logits in one.items():
        assert torch.equal(logits, other[key]), key
