from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from training.config import PromptMix
from training.learning.forward import ClipForward, ClipPlan, FrameOutput, normalised
from training.learning.model import new_model
from training.learning.prompts import Prompt, PromptKind, draw_prompt

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

SIZE, FRAMES, BATCH = 64, 3, 2


@pytest.fixture(scope="module")
def model() -> SAM2Base:
    return new_model("masklet-nano.yaml", SIZE, 0)


def clip() -> tuple[torch.Tensor, torch.Tensor]:
    """A square that moves over noise."""
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 80, (BATCH, FRAMES, SIZE, SIZE, 3)).astype(np.uint8))
    truth = torch.zeros(BATCH, FRAMES, SIZE, SIZE, dtype=torch.bool)
    for t in range(FRAMES):
        truth[:, t, 16:40, 10 + 4 * t : 34 + 4 * t] = True
    frames[truth] = 220
    return frames, truth


def prompt(kind: PromptKind) -> Prompt:
    _, truth = clip()
    mix = PromptMix(**{other.value: float(other is kind) for other in PromptKind})
    return draw_prompt(np.random.default_rng(0), truth[:, 0].numpy(), mix)


def run(model: SAM2Base, kind: PromptKind, plan: ClipPlan) -> list[FrameOutput]:
    frames, truth = clip()
    return ClipForward(model, frames, prompt(kind)).run(np.random.default_rng(0), truth, plan)


@pytest.mark.parametrize(
    ("kind", "plan", "expected"),
    [
        (PromptKind.point, ClipPlan(), [(0, "point", 3), (1, "track", 3), (2, "track", 3)]),
        (PromptKind.box, ClipPlan(), [(0, "box", 1), (1, "track", 3), (2, "track", 3)]),
        (PromptKind.mask, ClipPlan(), [(1, "track", 3), (2, "track", 3)]),
        (PromptKind.logits, ClipPlan(), [(0, "logits", 3), (1, "track", 3), (2, "track", 3)]),
        (
            PromptKind.point,
            ClipPlan(correct=0),
            [(0, "point", 3), (0, "correction", 1), (1, "track", 3), (2, "track", 3)],
        ),
        (
            PromptKind.mask,
            ClipPlan(correct=2, lost=frozenset({1})),
            [(1, "track", 3), (2, "track", 3), (2, "correction", 3)],
        ),
    ],
)
def test_what_is_said_of_which_frame(
    model: SAM2Base, kind: PromptKind, plan: ClipPlan, expected: list[tuple[int, str, int]]
) -> None:
    outputs = run(model, kind, plan)
    assert [(output.frame, output.role, output.logits.shape[1]) for output in outputs] == expected
    for output in outputs:
        assert output.logits.shape[2:] == (SIZE // 4, SIZE // 4)
        assert output.ious.shape == output.logits.shape[:2]
        assert output.presence.shape == (BATCH, 1)
        assert output.logits.abs().max() < 100  # not those that sam2 puts out for frames it believes to be empty


def test_logits_are_read_on_the_first_frame(model: SAM2Base) -> None:
    frames, truth = clip()
    given = prompt(PromptKind.logits)
    assert given.logits is not None
    with torch.no_grad():
        said = [
            ClipForward(model, frames, replace(given, logits=logits)).run(np.random.default_rng(0), truth, ClipPlan())[
                0
            ]
            for logits in (given.logits, -given.logits)
        ]
    assert not torch.equal(said[0].logits, said[1].logits)


def test_gradients_of_the_last_frame_reach_every_part(model: SAM2Base) -> None:
    model.zero_grad()
    last = run(model, PromptKind.point, ClipPlan())[-1]
    (last.logits.sum() + last.presence.sum() + last.ious.sum()).backward()  # type: ignore[no-untyped-call]
    for part in ("image_encoder.trunk", "image_encoder.neck", "memory_attention", "memory_encoder", "sam_mask_decoder"):
        gradients = [p.grad for name, p in model.named_parameters() if name.startswith(part) and p.grad is not None]
        assert any(bool(gradient.any()) for gradient in gradients), part
    model.zero_grad()


def test_objects_of_a_clip_are_predicted_as_if_alone(model: SAM2Base) -> None:
    frames, truth = clip()
    several, known = prompt(PromptKind.points), truth.repeat_interleave(2, 0)
    assert several.coords is not None
    assert several.labels is not None
    coords = several.coords.repeat_interleave(2, 0)
    coords[1::2] += 5
    joint = replace(several, coords=coords, labels=several.labels.repeat_interleave(2, 0))
    with torch.no_grad():
        outputs = ClipForward(model, frames, joint, objects=2).run(np.random.default_rng(0), known, ClipPlan())
        for n in range(2):
            single = replace(several, coords=coords[n::2])
            alone = ClipForward(model, frames, single).run(np.random.default_rng(0), truth, ClipPlan())
            for one, other in zip(outputs, alone, strict=True):
                torch.testing.assert_close(one.logits[n::2], other.logits, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(one.presence[n::2], other.presence, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(outputs[0].logits[0], outputs[0].logits[1], atol=1e-2)


def test_lost_memories_change_what_follows(model: SAM2Base) -> None:
    with torch.no_grad():
        kept = run(model, PromptKind.box, ClipPlan())
        lost = run(model, PromptKind.box, ClipPlan(lost=frozenset({1})))
    assert torch.equal(kept[1].logits, lost[1].logits)
    assert not torch.equal(kept[2].logits, lost[2].logits)


def test_plans() -> None:
    rng = np.random.default_rng(0)
    plans = [ClipPlan.draw(rng, 4, PromptKind.mask, correct=0.5, memory_dropout=0.3) for _ in range(200)]
    assert {plan.correct for plan in plans} == {None, 1, 2, 3}
    assert set().union(*(plan.lost for plan in plans)) == {1, 2, 3}  # the prompt is never forgotten
    assert {ClipPlan.draw(rng, 2, PromptKind.point, correct=1, memory_dropout=0).correct for _ in range(50)} == {0, 1}
    assert ClipPlan.draw(rng, 1, PromptKind.mask, correct=1, memory_dropout=0) == ClipPlan()


def test_normalised() -> None:
    frames = torch.full((2, 3, 32, 32, 3), 255, dtype=torch.uint8)
    pixels = normalised(frames)
    assert pixels.shape == (6, 3, 32, 32)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert pixels.is_contiguous(memory_format=torch.channels_last)
