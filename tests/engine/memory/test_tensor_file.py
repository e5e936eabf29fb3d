from __future__ import annotations

import gc

import pytest
import torch

from masklet.errors import ResourceExhausted
from masklet_server.engine.memory.tensor_file import TensorFile

PARTS = {
    "pointer": torch.randn(7),
    "score": torch.tensor(0.25),
    "features": torch.randn(3, 4, 5).to(torch.bfloat16),
    "turned": torch.arange(12, dtype=torch.int32).reshape(3, 4).T,
}
SIZE = 7 * 4 + 4 + 60 * 2 + 12 * 4


@pytest.mark.parametrize("inference", [False, True])
def test_what_is_moved_to_the_file_comes_back_bit_for_bit(inference: bool) -> None:
    with torch.inference_mode(inference):
        parts = {name: tensor.clone() for name, tensor in PARTS.items()}
        parts["features"][0, 0, :3] = torch.tensor([float("nan"), float("inf"), -0.0])
        stored = TensorFile(10_000).add(parts)
        assert (stored.nbytes, stored.is_in_memory) == (SIZE, True)
        stored.move_to_file()
        assert (stored.nbytes, stored.is_in_memory) == (0, False)
        found = stored.get()
        assert (stored.nbytes, stored.is_in_memory) == (SIZE, True)
    assert list(found) == list(parts)
    for name, tensor in parts.items():
        assert found[name] is not tensor
        assert (found[name].dtype, found[name].shape, found[name].device) == (tensor.dtype, tensor.shape, tensor.device)
        ours, theirs = (t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor))
        assert torch.equal(ours, theirs)


def test_nothing_is_written_twice() -> None:
    file = TensorFile(10_000)
    stored = file.add(PARTS)
    for _ in range(3):
        stored.move_to_file()
        stored.move_to_file()
        stored.get()
    assert file.size == SIZE


def test_space_is_used_again() -> None:
    file = TensorFile(2 * SIZE)
    stored = [file.add(PARTS), file.add(PARTS)]
    for one in stored:
        one.move_to_file()
    del one
    assert file.size == 2 * SIZE
    stored.pop()
    again = file.add({name: tensor + 1 for name, tensor in PARTS.items()})
    again.move_to_file()
    assert torch.equal(again.get()["pointer"], PARTS["pointer"] + 1)
    assert torch.equal(stored[0].get()["pointer"], PARTS["pointer"])


def test_the_bound_is_named_and_nothing_is_lost_at_it() -> None:
    file = TensorFile(SIZE)
    first, second = file.add(PARTS), file.add(PARTS)
    first.move_to_file()
    with pytest.raises(ResourceExhausted, match=f"max_history_bytes = {SIZE} bytes; remove_object and reset"):
        second.move_to_file()
    assert second.is_in_memory
    assert torch.equal(second.get()["pointer"], PARTS["pointer"])
    del first
    second.move_to_file()
    assert not second.is_in_memory


def test_a_full_disk_leaves_the_space_free(monkeypatch: pytest.MonkeyPatch) -> None:
    file = TensorFile(SIZE)
    stored = file.add(PARTS)
    with monkeypatch.context() as patch:
        patch.setattr("masklet_server.scratch.os.pwrite", _full)
        with pytest.raises(ResourceExhausted, match="the server cannot hold the results of earlier frames"):
            stored.move_to_file()
    stored.move_to_file()
    assert file.size == SIZE


def _full(*_: object) -> int:
    raise OSError(28, "No space left on device")


def test_no_garbage_collection_is_needed() -> None:
    gc.disable()
    try:
        file = TensorFile(SIZE)
        for _ in range(5):
            file.add(PARTS).move_to_file()
    finally:
        gc.enable()
