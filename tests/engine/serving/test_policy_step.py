"""Memory policies in the engine: banks, batches and masks, with a small network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from masklet.errors import FailedPrecondition, InvalidArgument
from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.policies import MAX_SELECTED, DistractorAware, MemoryPolicy, MotionAware
from masklet_server.engine.network.tensors import CandidateBatch
from masklet_server.engine.serving.batch import run_jobs
from masklet_server.engine.serving.jobs import FrameInput, ObjectTask, Track
from masklet_server.engine.serving.step import Step, apply_prompt, track
from tests.support import synthetic
from tests.support.engine import HEIGHT, SIZE, WIDTH, click, features, job, new_bank, small_network, stream

OTHERS = [MemoryPolicy.DISTRACTOR_AWARE, MemoryPolicy.MOTION_AWARE]
SCENE = synthetic.Scene()
PROMPT = Prompt(mask=SCENE.ball(0, HEIGHT, WIDTH))
# On these frames the wall hides the ball.
HIDDEN = range(14, 17)

Mask = npt.NDArray[np.bool_]


@pytest.fixture(autouse=True)
def low_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the bars: at a third of its training size, nano predicts low IoUs, and frames would not be remembered."""
    for bar in ("MEMORY_IOU", "STABLE_IOU"):
        monkeypatch.setattr(MotionAware, bar, 0.05)


def bank_of(policy: MemoryPolicy, *, correction_window: int = 0) -> MemoryBank:
    return new_bank(correction_window=correction_window, memory_policy=policy)


def scene_job(bank: MemoryBank, index: int, size: int = SIZE) -> Track:
    prompts = [PROMPT] if index == 0 else []
    frame = FrameInput(index, SCENE.frame(index, size, size), HEIGHT, WIDTH)
    return Track(stream(), frame, [ObjectTask(bank, prompts)])


def tracked_masks(bank: MemoryBank, stop: int, start: int = 0, *, size: int = SIZE) -> list[Mask]:
    """Track the scene's frames and return the masks."""
    network = small_network(size=size)
    return [run_jobs(network, [scene_job(bank, index, size)])[0].objects[0].mask for index in range(start, stop)]


def together(banks: Sequence[MemoryBank], stop: int) -> list[list[Mask]]:
    """Each bank's masks if each tracks one blob, all in one job per frame."""
    found: list[list[Mask]] = [[] for _ in banks]
    for index in range(stop):
        tasks = [ObjectTask(bank, [click(i)] if index == 0 else []) for i, bank in enumerate(banks)]
        (output,) = run_jobs(small_network(), [dataclasses.replace(job(banks[0], index), tasks=tasks)])
        for masks, one in zip(found, output.objects, strict=True):
            masks.append(one.mask)
    return found


def attended(bank: MemoryBank, frame_index: int) -> list[int]:
    return [age for age, _ in bank.memories_before(frame_index)]


@pytest.mark.parametrize("policy", OTHERS)
def test_a_visible_object_is_tracked_as_well_as_by_sam2(policy: MemoryPolicy) -> None:
    """At half of nano's training size, because at a third it tracks nothing well."""
    truth = [SCENE.visible(index, HEIGHT, WIDTH) for index in range(9)]
    quality = {
        kind: np.mean(
            [synthetic.iou(a, b) for a, b in zip(tracked_masks(bank_of(kind), 9, size=192), truth, strict=True)]
        )
        for kind in (MemoryPolicy.SAM2, policy)
    }
    assert quality[MemoryPolicy.SAM2] > 0.6
    assert quality[policy] > quality[MemoryPolicy.SAM2] - 0.05


@pytest.mark.parametrize("policy", OTHERS)
def test_a_policy_that_selects_as_sam2_does_gives_its_bits(
    policy: MemoryPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks differ only because of the selection of frames."""
    monkeypatch.setattr(MotionAware, "MEMORY_IOU", 0.0)  # every frame is good enough, and the filter does not count yet
    monkeypatch.setattr(DistractorAware, "ANCHOR_IOU", 2.0)
    for a, b in zip(tracked_masks(bank_of(policy), 13), tracked_masks(bank_of(MemoryPolicy.SAM2), 13), strict=True):
        assert np.array_equal(a, b)


def test_a_hidden_object_stays_in_mind_where_sam2_forgets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a wall, SAM 2's last frames show less and less of the object; other policies keep better frames."""
    network = small_network()
    now = HIDDEN.stop + network.recent_memories // 2
    hidden, original = False, network.decoder.candidates

    def candidates(*args: Any, **options: Any) -> CandidateBatch:
        found = original(*args, **options)
        # The score of a model that was trained with absent objects; nano was not.
        return dataclasses.replace(found, object_score=torch.full_like(found.object_score, -5.0)) if hidden else found

    monkeypatch.setattr(network.decoder, "candidates", candidates)
    banks = {kind: bank_of(kind) for kind in MemoryPolicy}
    for index in range(now):
        hidden = index in HIDDEN
        for bank in banks.values():
            (mask,) = tracked_masks(bank, index + 1, index)
            assert not (hidden and mask.any())
    by_sam2 = [i for i, memory in banks[MemoryPolicy.SAM2].recent.items() if memory.features is not None]
    assert by_sam2 == list(range(now - network.recent_memories, now))
    for kind in OTHERS:
        bank = banks[kind]
        assert bank.policy is not None
        assert not set(bank.policy.selected) & set(HIDDEN)
        assert min(bank.policy.selected) < HIDDEN.start - 1
        assert all(memory.features is None for memory in bank.recent.values()), "held once, by the policy"


@pytest.mark.parametrize("policy", OTHERS)
def test_a_step_attends_to_no_more_memories_than_the_model_was_trained_with(policy: MemoryPolicy) -> None:
    bank, sizes = bank_of(policy), []
    for index in range(25):
        run_jobs(small_network(), [job(bank, index, [click()] if index == 0 else [])])
        ages = attended(bank, index + 1)
        assert len(ages) <= small_network().model.num_maskmem
        assert [age for age in ages if age] == sorted({age for age in ages if age}, reverse=True)
        sizes.append(bank.nbytes)
    side, width = small_network().grid_size, small_network().model.mem_dim
    memory, pointer = width * side * side * 2, small_network().model.hidden_dim * 4 + 4 + 4
    assert max(sizes) <= (1 + MAX_SELECTED + 1) * memory + 16 * pointer
    assert bank.nbytes == (1 + len(bank.policy.selected)) * memory + 16 * pointer  # type: ignore[union-attr]


@pytest.mark.parametrize("policy", OTHERS)
@pytest.mark.slow
def test_objects_do_not_disturb_each_other(policy: MemoryPolicy) -> None:
    banks = [bank_of(policy) for _ in range(2)]
    found = together(banks, 12)
    for blob, (bank, masks) in enumerate(zip(banks, found, strict=True)):
        alone = bank_of(policy)
        for index, mask in enumerate(masks):
            tasks = [ObjectTask(alone, [click(blob)] if index == 0 else [])]
            (output,) = run_jobs(small_network(), [dataclasses.replace(job(alone, index), tasks=tasks)])
            # Batches change rounding: see tests/parity/test_batching.py.
            assert synthetic.iou(output.objects[0].mask, mask) > 0.99, (blob, index)
        assert bank.policy is not None
        assert alone.policy is not None
        assert {i: kept.role for i, kept in bank.policy.selected.items()} == {
            i: kept.role for i, kept in alone.policy.selected.items()
        }
    states = [str(bank.policy.to_json()) for bank in banks if bank.policy is not None]
    assert len(set(states)) == 2


def test_sam2s_masks_are_the_same_bits_beside_other_policies() -> None:
    """Objects with different policies do not share a batch."""
    banks = [bank_of(kind) for kind in MemoryPolicy]
    mixed = together(banks, 12)[0]
    (alone,) = together([bank_of(MemoryPolicy.SAM2)], 12)
    for a, b in zip(mixed, alone, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("policy", OTHERS)
def test_a_dumped_bank_goes_on_with_the_same_masks(policy: MemoryPolicy) -> None:
    bank = bank_of(policy, correction_window=4)
    tracked_masks(bank, 18)
    loaded = MemoryBank.load(bank.dump(), model="nano")
    assert (loaded.memory_policy, loaded.nbytes, repr(loaded)) == (policy, bank.nbytes, repr(bank))
    assert loaded.dump() == bank.dump()
    for ours, theirs in zip(tracked_masks(bank, 21, 18), tracked_masks(loaded, 21, 18), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_dump_with_a_policy_of_another_version_is_refused() -> None:
    bank = bank_of(MemoryPolicy.MOTION_AWARE)
    tracked_masks(bank, 2)
    unknown = bank.dump().replace(b"MOTION_AWARE", b"MOTION_BLIND")
    with pytest.raises(InvalidArgument, match="'MOTION_BLIND', which this version lacks"):
        MemoryBank.load(unknown, model="nano")


@pytest.mark.parametrize("policy", OTHERS)
def test_a_failed_step_leaves_the_bank_as_it_was(policy: MemoryPolicy) -> None:
    bank, other = bank_of(policy), bank_of(policy)
    tracked_masks(bank, 7)
    before = bank.dump()
    fails = dataclasses.replace(scene_job(other, 3), stream=stream("b"))  # nothing was prompted there
    with pytest.raises(FailedPrecondition):
        run_jobs(small_network(), [scene_job(bank, 7), fails])
    assert bank.dump() == before


@pytest.mark.parametrize("policy", OTHERS)
def test_a_step_that_fails_half_way_leaves_the_bank_as_it_was(
    policy: MemoryPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(policy)
    tracked_masks(bank, 7)
    before = bank.dump()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(small_network(), "encode_memory", fail)  # after the candidate was chosen and noted
    with pytest.raises(RuntimeError, match="no memory left"):
        run_jobs(small_network(), [scene_job(bank, 7)])
    assert bank.dump() == before


@pytest.mark.parametrize("policy", OTHERS)
@pytest.mark.slow
def test_rewinding_and_tracking_again_gives_the_same_masks(policy: MemoryPolicy) -> None:
    bank = bank_of(policy, correction_window=6)
    first = tracked_masks(bank, 18)
    bank.rewind(13)
    for again, before in zip(tracked_masks(bank, 18, 14), first[14:], strict=True):
        assert np.array_equal(again, before)


@pytest.mark.parametrize("policy", OTHERS)
def test_a_correction_is_remembered_as_the_policy_remembers(policy: MemoryPolicy) -> None:
    bank = bank_of(policy, correction_window=3)
    for index in range(8):
        run_jobs(small_network(), [job(bank, index, [click()] if index == 0 else [])])
    frame = features(7)
    apply_prompt(small_network(), Step(bank, frame, 7), click(0, 7), height=HEIGHT, width=WIDTH)
    track(small_network(), [Step(bank, features(8), 8)])
    assert bank.policy is not None
    assert 7 in bank.policy.selected
    assert bank.recent[7].features is None
    corrected = bank.recent[7]
    assert corrected.logits is not None
    expected = small_network().encode_memory(
        frame.top[None], corrected.logits[None], corrected.object_score[None], prompted=True
    )
    torch.testing.assert_close(bank.policy.selected[7].features, expected[0])


@pytest.mark.parametrize("policy", OTHERS)
def test_an_object_may_be_prompted_on_several_frames(policy: MemoryPolicy) -> None:
    bank = bank_of(policy)
    for index in range(8):
        prompts = [click(0, index)] if index in (0, 4) else []
        run_jobs(small_network(), [job(bank, index, prompts)])
    assert list(bank.conditioning) == [0, 4]
    assert attended(bank, 8).count(0) >= 2
    assert bank.policy is not None
    assert 4 not in bank.policy.selected
