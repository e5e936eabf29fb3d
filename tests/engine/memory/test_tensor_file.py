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
def test_what_is_put_away_comes_back_bit_for_bit(inference: bool) -> None:
    with torch.inference_mode(inference):
        parts = {name: tensor.clone() for name, tensor in PARTS.items()}
        parts["features"][0, 0, :3] = torch.tensor([float("nan"), float("inf"), -0.0])
        kept = TensorFile(10_000).keep(parts)
        assert (kept.nbytes, kept.is_away) == (SIZE, False)
        kept.put_away()
        assert (kept.nbytes, kept.is_away) == (0, True)
        found = kept.get()
        assert (kept.nbytes, kept.is_away) == (SIZE, False)
    assert list(found) == list(parts)
    for name, tensor in parts.items():
        assert found[name] is not tensor
        assert (found[name].dtype, found[name].shape, found[name].device) == (tensor.dtype, tensor.shape, tensor.device)
        ours, theirs = (t.contiguous().reshape(-1).view(torch.uint8) for t in (found[name], tensor))
        assert torch.equal(ours, theirs)


def test_nothing_is_written_twice() -> None:
    shelf = TensorFile(10_000)
    kept = shelf.keep(PARTS)
    for _ in range(3):
        kept.put_away()
        kept.put_away()
        kept.get()
    assert shelf.size == SIZE


def test_space_is_used_again() -> None:
    shelf = TensorFile(2 * SIZE)
    kept = [shelf.keep(PARTS), shelf.keep(PARTS)]
    for one in kept:
        one.put_away()
    del one
    assert shelf.size == 2 * SIZE
    kept.pop()
    again = shelf.keep({name: tensor + 1 for name, tensor in PARTS.items()})
    again.put_away()
    assert torch.equal(again.get()["pointer"], PARTS["pointer"] + 1)
    assert torch.equal(kept[0].get()["pointer"], PARTS["pointer"])


def test_the_bound_is_named_and_nothing_is_lost_at_it() -> None:
    shelf = TensorFile(SIZE)
    first, second = shelf.keep(PARTS), shelf.keep(PARTS)
    first.put_away()
    with pytest.raises(ResourceExhausted, match=f"max_history_bytes = {SIZE} bytes; remove_object and reset"):
        second.put_away()
    assert not second.is_away
    assert torch.equal(second.get()["pointer"], PARTS["pointer"])
    del first
    second.put_away()
    assert second.is_away


def test_a_full_disk_leaves_the_space_free(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = TensorFile(SIZE)
    kept = shelf.keep(PARTS)
    with monkeypatch.context() as patch:
        patch.setattr("masklet_server.scratch.os.pwrite", _full)
        with pytest.raises(ResourceExhausted, match="the server cannot hold the results of earlier frames"):
            kept.put_away()
    kept.put_away()
    assert shelf.size == SIZE


def _full(*_: object) -> int:
    raise OSError(28, "No space left on device")


def test_no_garbage_collection_is_needed() -> None:
    gc.disable()
    try:
        shelf = TensorFile(SIZE)
        for _ in range(5):
            shelf.keep(PARTS).put_away()
    finally:
        gc.enable()
