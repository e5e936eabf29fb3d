"""The stand-in for a device itself: it must catch what a GPU would refuse, and count what a GPU would wait for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.devices.pretend import DeviceMismatchError, PretendTensor, pretend_devices


def on(device: str, *size: int) -> Tensor:
    return torch.zeros(*size, device=device)


@pytest.mark.parametrize(
    "mix",
    [
        lambda a, b: a + b,
        lambda a, b: a.add_(b),
        torch.mul,
        lambda a, b: torch.cat([a, b]),
        lambda a, b: torch.stack([a, b]),
        lambda a, b: F.linear(a, b[None]),
        lambda a, b: a[b.long()] if b.device.type == "cuda" else a + b,
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: F.scaled_dot_product_attention(*[x.view(1, 1, 4, 1) for x in (a, b, a)]),
        lambda a, b: a.__setitem__(a > 0, b),
    ],
)
@pytest.mark.parametrize("devices", [("cuda:0", "cpu"), ("cpu", "cuda:1"), ("cuda:0", "cuda:1")])
def test_tensors_of_two_devices_must_not_meet(
    mix: Callable[[Tensor, Tensor], object], devices: tuple[str, str]
) -> None:
    with pretend_devices(), pytest.raises(DeviceMismatchError):
        mix(*(on(device, 4) for device in devices))


def test_single_numbers_and_copies_may_cross() -> None:
    with pretend_devices() as traffic:
        there = on("cuda", 4)
        assert (there + torch.tensor(2.0)).tolist() == [2, 2, 2, 2]
        there.copy_(torch.ones(4))
        assert there.cpu().tolist() == [1, 1, 1, 1]
        assert there.to("cuda:1").device == torch.device("cuda", 1)
    assert sum(traffic.uploads.values()) == 1
    assert sum(traffic.waits.values()) == 2


@pytest.mark.parametrize(
    "read",
    [
        Tensor.item,
        Tensor.cpu,
        Tensor.tolist,
        Tensor.nonzero,
        bool,
        float,
        lambda t: t[t > -1],
        lambda t: t.masked_select(t > -1),
        lambda t: torch.equal(t, t),
        lambda t: t.to("cpu"),
        lambda t: torch.empty(1).copy_(t),
    ],
)
def test_whatever_waits_for_the_device_is_counted(read: Callable[[Tensor], object]) -> None:
    with pretend_devices() as traffic:
        there = on("cuda", 1)
        assert not traffic.waits
        read(there)
    assert sum(traffic.waits.values()) == 1


def test_a_tensor_of_a_device_has_no_numpy() -> None:
    with pretend_devices(), pytest.raises(RuntimeError, match="numpy"):
        on("cuda", 1).numpy()


def test_a_module_moves_with_its_weights_and_computes_there() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).eval()
    picture = torch.randn(1, 3, 4, 4)
    with torch.inference_mode():
        expected = module(picture)
        with pretend_devices():
            there = module.to("cuda:1")
            assert {p.device for p in (*there.parameters(), *there.buffers())} == {torch.device("cuda", 1)}
            out = there(picture.to("cuda:1"))
            assert isinstance(out, PretendTensor)
            assert torch.equal(out.cpu(), expected)
            with pytest.raises(DeviceMismatchError):
                there(picture)
