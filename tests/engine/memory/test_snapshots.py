"""Snapshots of a bank: a bank that is loaded from one goes on with the same masks."""

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
from tests.support.engine import click, job, new_bank, small_network


def step(bank: MemoryBank, frame_index: int) -> torch.Tensor:
    """The mask ``bool[H, W]`` of the next frame; the object is prompted on the first one."""
    (output,) = run_jobs(small_network(), [job(bank, frame_index, [click()] if frame_index == 0 else [])])
    return torch.from_numpy(output.objects[0].mask)


@pytest.mark.parametrize("policy", list(MemoryPolicy))
@pytest.mark.slow
def test_from_each_snapshot_on_the_masks_are_the_same(policy: MemoryPolicy) -> None:
    bank, snapshots = new_bank(correction_window=7, memory_policy=policy), BankSnapshots(TensorFile(10**9))
    bank.keeps_prompts = True
    masks = []
    for index in range(14):
        masks.append(step(bank, index))
        if index % 5 == 0:
            snapshots.put(bank, is_needed=index == 0)
    assert len(snapshots) == 3
    assert snapshots.last == 10
    assert [snapshots.before(index) for index in (0, 4, 5, 9, 13)] == [0, 0, 5, 5, 10]
    for start in (0, 5, 10):
        again = MemoryBank.load(snapshots.get(start), model="nano")
        assert (again.last_frame, again.correction_window, again.keeps_prompts) == (start, 1, True)
        again.check_correctable(start)
        assert all(torch.equal(step(again, index), masks[index]) for index in range(start + 1, 14))
        assert bank.last_frame == 13, "it is left alone"


def test_a_snapshot_takes_the_place_of_those_after_it() -> None:
    bank, file = new_bank(correction_window=20), TensorFile(10**9)
    snapshots = BankSnapshots(file)
    for index in range(9):
        step(bank, index)
        snapshots.put(bank, is_needed=True)
    size = file.size
    bank.rewind(4)
    snapshots.put(bank, is_needed=True)
    assert (len(snapshots), snapshots.last) == (5, 4)
    for index in range(5, 9):
        step(bank, index)
        snapshots.put(bank, is_needed=False)
    gc.collect()
    assert file.size == size, "space is used again"
    snapshots.clear()
    assert len(snapshots) == 0


def test_snapshots_are_not_in_memory_and_their_space_is_bounded() -> None:
    bank = new_bank()
    step(bank, 0)
    probe = TensorFile(10**9)
    BankSnapshots(probe).put(bank, is_needed=True)
    file = TensorFile(3 * probe.size)
    snapshots = BankSnapshots(file)
    snapshots.put(bank, is_needed=True)
    snapshots.get(0)
    assert snapshots.nbytes == 0
    for index in range(1, 12):
        step(bank, index)
        snapshots.put(bank, is_needed=index == 8)
        assert file.size <= file.max_bytes
        assert snapshots.last == index, "the others make room"
        assert snapshots.before(0) == 0
    assert snapshots.before(8) == 8
    step(bank, 12)
    snapshots.put(bank, is_needed=True)
    step(bank, 13)
    with pytest.raises(ResourceExhausted, match="max_history_bytes"):
        snapshots.put(bank, is_needed=False)
    assert len(snapshots) == 3
