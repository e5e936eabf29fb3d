from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from masklet.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.object_memory import MAX_CONDITIONING_FRAMES
from masklet_server.engine.serving.batch import run_jobs
from masklet_server.engine.serving.engine import Engine
from masklet_server.engine.serving.step import Step, apply_prompt, track
from tests.support.engine import HEIGHT, WIDTH, click, features, job, new_bank, small_network


def tracked(num_frames: int, *, correction_window: int = 0) -> MemoryBank:
    """A bank that has tracked so many frames."""
    bank = new_bank(correction_window=correction_window)
    for index in range(num_frames):
        run_jobs(small_network(), [job(bank, index, [click()] if index == 0 else [])])
    return bank


def go_on(bank: MemoryBank, start: int, stop: int) -> list[torch.Tensor]:
    """Track further frames and return their masks ``bool[H, W]``."""
    outputs = [run_jobs(small_network(), [job(bank, index)])[0] for index in range(start, stop)]
    return [torch.from_numpy(output.objects[0].mask) for output in outputs]


@pytest.mark.slow
def test_a_bank_keeps_what_a_later_step_can_read_and_no_more() -> None:
    bank = tracked(25)
    assert list(bank.conditioning) == [0]
    assert bank.conditioning[0].features is not None
    assert sorted(bank.recent) == list(range(10, 25)), "the last 15 pointers"
    assert [i for i, m in sorted(bank.recent.items()) if m.features is not None] == [22, 23, 24], "the last 3 memories"
    assert all(memory.logits is None for memory in [*bank.recent.values(), *bank.conditioning.values()])
    assert bank.clicks == {}
    assert [age for age, _ in bank.memories_before(25)] == [0, 3, 2, 1]
    assert [distance for distance, _ in bank.pointers_before(25)] == [25, *range(1, 16)]


def test_memories_are_bfloat16() -> None:
    bank = tracked(2)
    assert {memory.features.dtype for memory in bank.recent.values() if memory.features is not None} == {torch.bfloat16}


def test_a_full_bank_is_all_memories_and_sixteen_pointers() -> None:
    bank = tracked(30)
    side = small_network().grid_size
    width = small_network().model.mem_dim
    exact = small_network().model.num_maskmem * width * side * side * 2 + 16 * (
        small_network().model.hidden_dim * 4 + 4 + 4
    )
    assert bank.nbytes == exact


def test_a_bank_of_another_number_of_memories_is_refused() -> None:
    engine = Engine({"nano": small_network()})
    data = tracked(2).dump()
    assert engine.load_bank("nano", data).recent_memories == small_network().recent_memories == 3
    with pytest.raises(InvalidArgument, match="attends to 6 recent memories; the model that is loaded attends to 3"):
        engine.load_bank("nano", MemoryBank("nano").dump())


@pytest.mark.slow
def test_memory_is_constant_over_400_frames() -> None:
    """A bank reaches 16 frames back, so 40 frames show whether its size is bounded."""
    bank = new_bank()
    seen = [features(index) for index in range(50)]
    apply_prompt(small_network(), Step(bank, seen[0], 0), click(), height=HEIGHT, width=WIDTH)
    sizes = []
    for index in range(400):
        track(small_network(), [Step(bank, seen[index % 50], index)])
        sizes.append(bank.nbytes)
    assert len(set(sizes[40:])) == 1


@pytest.mark.parametrize("correction_window", [0, 4])
def test_a_dumped_bank_goes_on_with_the_same_masks(correction_window: int) -> None:
    bank = tracked(9, correction_window=correction_window)
    loaded = MemoryBank.load(bank.dump(), model="nano")
    assert loaded.nbytes == bank.nbytes
    assert repr(loaded) == repr(bank)
    for ours, theirs in zip(go_on(bank, 9, 14), go_on(loaded, 9, 14), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_a_dumped_bank_goes_on_in_another_process(tmp_path: Path) -> None:
    bank = tracked(5)
    (tmp_path / "bank").write_bytes(bank.dump())
    program = (
        "import sys, torch; from pathlib import Path; sys.path.insert(0, '.')\n"
        "from tests.engine.memory.test_bank import MemoryBank, go_on\n"
        "folder = Path(sys.argv[1]); bank = MemoryBank.load((folder / 'bank').read_bytes(), model='nano')\n"
        "torch.save(go_on(bank, 5, 8), folder / 'masks')\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120)
    for ours, theirs in zip(go_on(bank, 5, 8), torch.load(tmp_path / "masks", weights_only=True), strict=True):
        assert torch.equal(ours, theirs)


def test_a_dump_keeps_the_order_of_conditioning_frames() -> None:
    bank = new_bank()
    for index in range(12):
        prompts = [Prompt(frame_index=index, point_coords=[[40, 40]])] if index in (0, 2, 10) else []
        run_jobs(small_network(), [job(bank, index, prompts)])
    assert list(MemoryBank.load(bank.dump(), model="nano").conditioning) == [0, 2, 10]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "not a dumped memory bank"),
        (lambda data: data[:100], "not a dumped memory bank"),
        (lambda data: b"garbage " * 100, "not a dumped memory bank"),
        (lambda data: data.replace(b"masklet-bank-1", b"masklet-bank-9"), "format"),
    ],
)
def test_damaged_dumps_are_refused(damage: object, message: str) -> None:
    assert callable(damage)
    with pytest.raises(InvalidArgument, match=message):
        MemoryBank.load(damage(tracked(1).dump()), model="nano")


def test_a_dump_of_another_model_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"'nano', not by 'sam2.1-tiny'"):
        MemoryBank.load(tracked(1).dump(), model="sam2.1-tiny")


@pytest.mark.parametrize("frame_index", [0, 3])
def test_a_prompt_that_waits_for_its_step_is_dumped_too(frame_index: int) -> None:
    bank = tracked(frame_index + 1, correction_window=2) if frame_index else new_bank()
    work = Step(bank, features(frame_index), frame_index)
    apply_prompt(small_network(), work, click(), height=HEIGHT, width=WIDTH)
    bank.rewind(frame_index)
    loaded = MemoryBank.load(bank.dump(), model="nano")
    assert loaded.nbytes == bank.nbytes
    assert [one.is_conditioning for one in loaded.prompted.values()] == [frame_index == 0]
    start = frame_index + 1
    for ours, theirs in zip(go_on(bank, start, start + 3), go_on(loaded, start, start + 3), strict=True):
        assert torch.equal(ours, theirs)
    assert not bank.prompted


@pytest.mark.slow
def test_prompts_are_kept_for_good_where_that_is_wanted() -> None:
    bank, plain = new_bank(), new_bank()
    bank.keeps_prompts = True
    for index in range(20):
        for one in (bank, plain):
            run_jobs(small_network(), [job(one, index, [click()] if index in (0, 2) else [])])
    later = MemoryBank.load(bank.copy().dump(), model="nano")
    assert later.keeps_prompts
    for one in (bank, later):
        assert list(one.clicks) == [0, 2]
        assert [i for i, memory in one.conditioning.items() if memory.logits is not None] == [0, 2]
    assert plain.clicks == {}
    assert bank.nbytes > plain.nbytes
    assert bank.correction_nbytes == 0, "no window has to do with it"
    plain.learn_prompts(later)
    assert list(plain.clicks) == [0, 2]
    assert plain.conditioning == later.conditioning
    assert plain.conditioning is not later.conditioning


def test_frames_cannot_be_skipped_or_repeated() -> None:
    bank = tracked(3)
    for index in (1, 2, 4):
        with pytest.raises(FailedPrecondition, match="does not follow frame 2"):
            track(small_network(), [Step(bank, features(index), index)])
    assert bank.last_frame == 2


def test_an_object_without_prompt_cannot_be_tracked() -> None:
    with pytest.raises(FailedPrecondition, match="no prompt yet"):
        track(small_network(), [Step(new_bank(), features(0), 0)])


def test_corrections_end_where_the_window_ends() -> None:
    bank = tracked(10, correction_window=3)
    correction = Prompt(frame_index=6, point_coords=[[40, 40]])
    with pytest.raises(InvalidArgument, match="last 3 tracked frames"):
        apply_prompt(small_network(), Step(bank, features(6), 6), correction, height=HEIGHT, width=WIDTH)
    apply_prompt(small_network(), Step(bank, features(7), 7), correction, height=HEIGHT, width=WIDTH)
    with pytest.raises(InvalidArgument, match="last 3 tracked frames"):
        bank.rewind(6)
    bank.rewind(7)
    assert bank.last_frame == 7


@pytest.mark.slow
def test_what_corrections_cost_is_told_to_the_byte() -> None:
    plain, wide = tracked(30), tracked(30, correction_window=10)
    assert plain.correction_nbytes == 0
    assert new_bank().correction_nbytes == 0
    assert wide.correction_nbytes == wide.nbytes - plain.nbytes > 0
    wide.keep(4)
    narrow = tracked(30, correction_window=4)
    assert wide.correction_nbytes == narrow.correction_nbytes
    assert repr(wide) == repr(narrow)
    assert wide.dump() == narrow.dump()


def test_a_narrower_window_tracks_and_corrects_as_before() -> None:
    shrunk, plain = tracked(20, correction_window=10), tracked(20)
    shrunk.keep(3)
    for bank in (shrunk, plain):
        bank.check_next(20)
    for ours, theirs in zip(go_on(shrunk, 20, 24), go_on(plain, 20, 24), strict=True):
        assert torch.equal(ours, theirs)
    shrunk.check_correctable(21)
    with pytest.raises(InvalidArgument, match="last 3 tracked frames"):
        shrunk.check_correctable(20)


def test_going_back_before_the_first_frame_takes_a_prompt_there() -> None:
    bank = new_bank(correction_window=10)
    for index in range(5, 8):
        run_jobs(small_network(), [job(bank, index, [click(0, 5)] if index == 5 else [])])
    with pytest.raises(InvalidArgument, match="last 10 tracked frames"):
        bank.rewind(3)
    apply_prompt(small_network(), Step(bank, features(3), 3), click(0, 3), height=HEIGHT, width=WIDTH)
    bank.rewind(3)
    assert (bank.first_frame, bank.last_frame, bank.recent) == (3, 3, {})
    go_on(bank, 4, 8)
    assert list(bank.conditioning) == [5, 3]
    assert sorted(bank.recent) == [4, 6, 7]


def test_conditioning_frames_are_bounded() -> None:
    bank = new_bank()
    work = Step(bank, features(0), 0)
    for index in range(MAX_CONDITIONING_FRAMES):
        apply_prompt(small_network(), Step(bank, work.features, index), click(), height=HEIGHT, width=WIDTH)
    with pytest.raises(ResourceExhausted, match="prompts on 32 frames"):
        apply_prompt(small_network(), Step(bank, work.features, 99), click(), height=HEIGHT, width=WIDTH)


def test_a_failed_step_leaves_the_bank_as_it_was() -> None:
    bank = tracked(4)
    before, text = bank.dump(), repr(bank)
    bad = job(bank, 7, [Prompt(frame_index=7, point_coords=[[40, 40]])])
    with pytest.raises(FailedPrecondition):
        run_jobs(small_network(), [bad])
    assert repr(bank) == text
    assert bank.dump() == before
