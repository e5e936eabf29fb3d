"""Tensors that say they lie on a CUDA device, and compute on the CPU.

With a build of torch that has no CUDA, and on a machine without a GPU, code can still be run as if there were one:
every tensor knows the device that it would lie on. Mixing devices fails as it would on a GPU, transfers and
everything that waits for the device are counted, and the numbers are right, because they are computed on the CPU.

What this does not tell: whether a kernel exists for the device, how it rounds, and how long it takes.
"""

from __future__ import annotations

import collections
import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

_HERE = Path(__file__).name

# Operations whose result the host reads, or whose result's size depends on the numbers.
_WAITING = frozenset(
    {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2", "allclose"}
)
# Functions that make a tensor on the device that they are told.
_FACTORIES = frozenset(
    getattr(torch, name)
    for name in [
        "tensor",
        "as_tensor",
        "empty",
        "zeros",
        "ones",
        "full",
        "arange",
        "linspace",
        "rand",
        "randn",
        "randint",
        "eye",
        "empty_strided",
    ]
)


# Methods of one tensor that ask the driver before they dispatch.
_GUARDED = frozenset(
    getattr(Tensor, name)
    for name in ["contiguous", "float", "half", "bfloat16", "double", "int", "long", "bool", "short", "byte"]
)


# Methods that do so too, and wait for the device.
_READING = frozenset(
    getattr(Tensor, name)
    for name in ["nonzero", "item", "tolist", "__bool__", "__float__", "__int__", "__index__", "__contains__"]
)
# What is asked about tensors, not of their numbers.
_HARMLESS = frozenset({"_has_compatible_shallow_copy_type", "is_same_size"})


class DeviceMismatchError(RuntimeError):
    """Tensors of different devices meet in one operation."""


@dataclass
class Traffic:
    """What crossed between host and device.

    Attributes:
        waits: By place in the code, how often the host waited for the device.
        uploads: By place in the code, how many tensors went to the device.
    """

    waits: collections.Counter[str] = field(default_factory=collections.Counter)
    uploads: collections.Counter[str] = field(default_factory=collections.Counter)


_traffic: list[Traffic] = []


class PretendTensor(Tensor):
    """A tensor that says it lies on another device than the one where its numbers are."""

    held: Tensor
    """The numbers, on the CPU."""

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> PretendTensor:
        with torch.inference_mode(mode=False):  # else no view of a weight can be made in inference mode
            made: PretendTensor = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - torch has no public name for it
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device=device,
                requires_grad=False,
            )
        made.held = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"PretendTensor({self.held!r}, device={self.device})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


def _device_of(values: Any) -> torch.device:
    return next(value.device for value in tree_flatten(values)[0] if isinstance(value, PretendTensor))


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = func.overloadpacket.__name__
    device = _device_of((args, kwargs))
    target = kwargs.get("device")
    if name == "copy_":
        return _copy(*args)
    if name not in _HARMLESS:
        _check(func, name, args, kwargs, device)
    if name in _WAITING or (name in ("index", "index_put_") and _has_bool_index(args)):
        _waited()
    if target is not None:
        kwargs = {**kwargs, "device": "cpu"}
        device = torch.device(target)
        if device.type == "cpu" and name in ("_to_copy", "to"):  # in inference mode `to` comes undivided
            _waited()
    out = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if device.type == "cpu":
        return out
    if name.endswith("_") and not name.endswith("__") and isinstance(args[0], PretendTensor):
        return args[0]
    return tree_map(lambda value: PretendTensor(value, device) if isinstance(value, Tensor) else value, out)


def _check(func: Any, name: str, args: Any, kwargs: Any, device: torch.device) -> None:
    """Raise unless all tensors lie on one device; single numbers, and indices, may lie on the CPU."""
    flat = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    others = [
        value for value in flat if value.device != device and not (value.device.type == "cpu" and value.dim() == 0)
    ]
    if name in ("index", "index_put_", "index_put"):
        for value in others:
            if value.device.type == "cpu" and value is not args[0]:
                _uploaded()
        others = [value for value in others if value.device.type != "cpu" or value is args[0]]
    if others:
        raise DeviceMismatchError(f"{func}: tensors on {device} and {others[0].device} meet, at {_place()}")


def _copy(to: Tensor, source: Tensor, *rest: Any) -> Tensor:
    if to.device.type == "cpu":
        _waited()
    elif source.device.type == "cpu":
        _uploaded()
    _inner(to).copy_(_inner(source))
    return to


def _has_bool_index(args: tuple[Any, ...]) -> bool:
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _inner(value: Any) -> Any:
    return value.held if isinstance(value, PretendTensor) else value


def _waited() -> None:
    for traffic in _traffic:
        traffic.waits[_place()] += 1


def _uploaded() -> None:
    for traffic in _traffic:
        traffic.uploads[_place()] += 1


def _place() -> str:
    """The line of masklet or sam2 that is running."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.name != _HERE and any("masklet" in part or part == "sam2" for part in path.parts[-5:-1]):
            return f"{'/'.join(path.parts[-3:])}:{frame.name}"
    return "elsewhere"


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; itself if it lies there already."""
    if tensor.device == device:
        return tensor
    if isinstance(tensor, PretendTensor):
        return PretendTensor(tensor.held.clone(), device)
    _uploaded()
    if isinstance(tensor, torch.nn.Parameter):
        tensor = tensor.data
    return PretendTensor(tensor.clone(), device)


class _PretendDevices(TorchFunctionMode):
    """Redirects what would ask the driver for a device."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.to, Tensor.cuda):
            return _to(func, args, kwargs)
        if func in _FACTORIES and (device := kwargs.get("device")) is not None and torch.device(device).type == "cuda":
            made = func(*args, **{**kwargs, "device": "cpu"})
            if func in (torch.tensor, torch.as_tensor):
                _uploaded()
            return PretendTensor(made, _numbered(device))
        if func is Tensor.copy_ and any(isinstance(one, PretendTensor) for one in args[:2]):
            return _copy(*args)
        if func in _READING and isinstance(args[0], PretendTensor):
            _waited()
            read = func(args[0].held, *args[1:], **kwargs)
            return PretendTensor(read, args[0].device) if isinstance(read, Tensor) else read
        if func in _GUARDED and isinstance(args[0], PretendTensor):
            made = func(args[0].held, *args[1:], **kwargs)
            return args[0] if made is args[0].held else PretendTensor(made, args[0].device)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], PretendTensor):
            return _subscript(func, *args)
        if func is F.scaled_dot_product_attention and any(isinstance(a, PretendTensor) for a in args):
            device = _device_of(args)
            flat = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Tensor)]
            if any(a.device != device for a in flat):
                raise DeviceMismatchError(f"attention: tensors on {[str(a.device) for a in flat]} meet, at {_place()}")
            return PretendTensor(func(*tree_map(_inner, args), **tree_map(_inner, kwargs)), device)
        return func(*args, **kwargs)


def _subscript(func: Callable[..., Any], tensor: PretendTensor, key: Any, *value: Any) -> Any:
    """Reading or writing a part of a tensor. It is done here because torch asks the driver before it dispatches."""
    others = [one for one in value if isinstance(one, Tensor) and one.dim() and one.device != tensor.device]
    for index in key if isinstance(key, tuple) else (key,):
        if isinstance(index, Tensor):
            if others:
                raise DeviceMismatchError(f"{others[0].device} and {tensor.device} meet, at {_place()}")
            if index.dtype in (torch.bool, torch.uint8):
                _waited()
            if index.device.type == "cpu" and index.dim():
                _uploaded()
            elif index.device not in (tensor.device, torch.device("cpu")):
                raise DeviceMismatchError(f"an index on {index.device} for a tensor on {tensor.device}, at {_place()}")
    for _ in others:
        _uploaded()
    out = func(tensor.held, tree_map(_inner, key), *map(_inner, value))
    return PretendTensor(out, tensor.device) if isinstance(out, Tensor) else out


def _numbered(device: Any) -> torch.device:
    device = torch.device(device)
    return torch.device(device.type, device.index or 0)


def _to(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensor, *rest = args
    device = kwargs.pop("device", None) if func is Tensor.to else torch.device("cuda", 0)
    for i, value in enumerate(rest):
        if isinstance(value, (torch.device, str, int)) and not isinstance(value, bool):
            device = value
            del rest[i]
            break
        if isinstance(value, Tensor):
            device, rest[i] = value.device, value.dtype
            break
    if device is None or torch.device(device).type == "cpu":
        placed = [] if device is None else [device]  # first, as `to` wants it where a dtype follows
        return func(tensor, *placed, *rest, **kwargs)
    moved = upload(tensor, _numbered(device))
    kwargs.pop("non_blocking", None)
    rest = [value for value in rest if value is not None and not isinstance(value, bool)]
    if kwargs.get("dtype", 0) is None:
        del kwargs["dtype"]
    return Tensor.to(moved, *rest, **kwargs) if rest or kwargs else moved


@contextlib.contextmanager
def pretend_devices() -> Iterator[Traffic]:
    """In this thread and block, ``cuda:N`` are devices; tells what crosses between them and the host."""
    traffic = Traffic()
    _traffic.append(traffic)
    # Else `Module.to` would put the moved numbers into the old parameter, which does not know of devices.
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _PretendDevices():
            yield traffic
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
        _traffic.remove(traffic)
