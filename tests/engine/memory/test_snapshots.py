"""States of a bank along its way: what is brought back from them goes on as the bank did."""

from __future__ import annotations

import gc

import pytest
import torch

from masklet.errors import ResourceExhausted
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.snapshots import BankSnapshots
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.serving.batch import run_jobs
from tests.support.engine import click, job, small_network


def step(bank: MemoryBank, frame_index: int) -> torch.Tensor:
    """The mask ``bool[H, W]`` of the next frame; the object is prompted on the first one."""
    (output,) = run_jobs(small_network(), [job(bank, frame_index, [click()] if frame_index == 0 else [])])
    return torch.from_numpy(output.objects[0].mask)


@pytest.mark.parametrize("policy", list(MemoryPolicy))
def test_from_each_state_on_the_masks_are_the_same(policy: MemoryPolicy) -> None:
    bank, trail = MemoryBank("nano", correction_window=7, memory_policy=policy), BankSnapshots(TensorFile(10**9))
    bank.keeps_prompts = True
    masks = []
    for index in range(14):
        masks.append(step(bank, index))
        if index % 5 == 0:
            trail.put(bank, is_needed=index == 0)
    assert len(trail) == 3
    assert trail.last == 10
    assert [trail.before(index) for index in (0, 4, 5, 9, 13)] == [0, 0, 5, 5, 10]
    for start in (0, 5, 10):
        again = MemoryBank.load(trail.get(start), model="nano")
        assert (again.last_frame, again.correction_window, again.keeps_prompts) == (start, 1, True)
        again.check_correctable(start)
        assert all(torch.equal(step(again, index), masks[index]) for index in range(start + 1, 14))
        assert bank.last_frame == 13, "it is left alone"


def test_a_state_takes_the_place_of_those_after_it() -> None:
    bank, shelf = MemoryBank("nano", correction_window=20), TensorFile(10**9)
    trail = BankSnapshots(shelf)
    for index in range(9):
        step(bank, index)
        trail.put(bank, is_needed=True)
    size = shelf.size
    bank.rewind(4)
    trail.put(bank, is_needed=True)
    assert (len(trail), trail.last) == (5, 4)
    for index in range(5, 9):
        step(bank, index)
        trail.put(bank, is_needed=False)
    gc.collect()
    assert shelf.size == size, "space is used again"
    trail.clear()
    assert len(trail) == 0


def test_nothing_of_it_is_in_memory_and_its_space_is_bounded() -> None:
    bank = MemoryBank("nano")
    step(bank, 0)
    probe = TensorFile(10**9)
    BankSnapshots(probe).put(bank, is_needed=True)
    shelf = TensorFile(3 * probe.size)
    trail = BankSnapshots(shelf)
    trail.put(bank, is_needed=True)
    trail.get(0)
    assert all(piece.is_away for state in trail._states.values() for piece in state.pieces)
    for index in range(1, 12):
        step(bank, index)
        trail.put(bank, is_needed=index == 8)
        assert shelf.size <= shelf.max_bytes
        assert trail.last == index, "the others make room"
        assert trail.before(0) == 0
    assert trail.before(8) == 8
    step(bank, 12)
    trail.put(bank, is_needed=True)
    step(bank, 13)
    with pytest.raises(ResourceExhausted, match="max_history_bytes"):
        trail.put(bank, is_needed=False)
    assert len(trail) == 3
