"""Choosing the device and the dtype: as the settings say, or by measuring."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base

from masklet.errors import FailedPrecondition, InvalidArgument
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.openvino.compiled import is_installed
from masklet_server.models.paths import cache_folder

logger = logging.getLogger(__name__)

RUNTIMES = ("auto", "torch", "openvino")
# Those that settings name. Measuring on a GPU may also choose float16.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """The device with the name ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InvalidArgument: The name is not one of these.
        FailedPrecondition: This machine, or this build of torch, has no such device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()) or (kind == "cpu" and index):
        raise InvalidArgument.of("device", f"is {name!r}, must be auto, cpu, cuda or cuda:N")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise FailedPrecondition(_no_cuda())
    if int(index or 0) >= torch.cuda.device_count():
        raise FailedPrecondition(
            f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA devices, counted from 0"
        )
    return torch.device("cuda", int(index or 0))


def _no_cuda() -> str:
    """What is wrong where torch finds no CUDA device, and how to fix it."""
    advice = "nvidia-smi must list one (it comes with NVIDIA's driver)"
    if torch.version.cuda is None:
        advice = (
            "this build of torch has no CUDA, so install another one as https://pytorch.org/get-started/locally says"
        )
    return f"torch {torch.__version__} finds no CUDA device on this machine: {advice}; or use --device cpu"


def pick_devices(names: str) -> tuple[torch.device, ...]:
    """Several devices: ``all`` for every GPU of the machine, or names as of `pick_device` with commas between them.

    Raises:
        InvalidArgument: A name is wrong, or names a device that another one names.
        FailedPrecondition: This machine, or this build of torch, has no such device.
    """
    if names == "all":
        if not (torch.cuda.is_available() and torch.cuda.device_count()):
            raise FailedPrecondition(f"device is all, but {_no_cuda()}")
        return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    devices = tuple(pick_device(name) for name in names.split(","))
    if len(set(devices)) < len(devices):
        raise InvalidArgument.of("device", f"{names!r} names a device twice; name each once")
    return devices


def device_name(device: torch.device) -> str:
    """The name of the hardware, such as "NVIDIA H200" or that of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "CPU"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def device_bytes(device: torch.device) -> int:
    """Memory of a GPU in bytes; 0 for the CPU, which has the machine's."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has instructions for products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def make_network(
    model: SAM2Base,
    device: torch.device,
    dtype: str = "auto",
    *,
    graphs: bool = False,
    runtime: str = "auto",
    tune: bool = True,
) -> Network:
    """Put the model on the device, in the given dtype or the quicker one, computed by the quicker library.

    On CUDA ``auto`` is bfloat16 where the hardware has it, as Meta runs SAM 2. On a CPU with AMX or AVX512-BF16, one
    picture is encoded in each dtype, and the quicker dtype is taken.

    On CUDA, `tune` asks for the fastest way to compute, measured once for each device, driver and model, as
    `masklet_server.engine.network.tuning` says; not with a dtype of "float32", which means SAM 2's own masks. `graphs`
    asks for CUDA graphs, and for nothing else to be measured.

    On a CPU, OpenVINO computes the parts of the network that it computes quicker than torch, if it is installed and the
    runtime is not "torch". A dtype of "float32" means the masks of sam2 to the bit. Only torch gives them, so there
    OpenVINO computes nothing unless the runtime is "openvino".

    Raises:
        InvalidArgument: The dtype is not auto, float32 or bfloat16, the runtime is not one of `RUNTIMES`, or the engine
            does not support the configuration.
        FailedPrecondition: The runtime is "openvino", but openvino is not installed or the device is not a CPU.
    """
    if runtime not in RUNTIMES:
        raise InvalidArgument.of("runtime", f"is {runtime!r}, must be one of {', '.join(RUNTIMES)}")
    has_openvino = device.type == "cpu" and is_installed()
    if runtime == "openvino" and not has_openvino:
        raise FailedPrecondition("runtime openvino needs --device cpu and the package openvino: pip install openvino")
    if device.type == "cuda" and tune and not graphs and dtype in ("auto", "bfloat16"):
        return _network_by_measuring(model, device, dtype)
    if not has_openvino or runtime == "torch" or (runtime == "auto" and dtype == "float32"):
        return _network_by_torch(model, device, dtype, graphs=graphs)
    weights = copy.deepcopy(model)
    network = _network_by_torch(model, device, dtype, graphs=graphs)
    _accelerate(network, weights, required=runtime == "openvino")
    return network


def _network_by_measuring(model: SAM2Base, device: torch.device, dtype: str) -> Network:
    """The network in the way that is the fastest on this GPU."""
    from masklet_server.engine.network.tuning.choice import StoredChoices
    from masklet_server.engine.network.tuning.tune import circumstances_of, dtypes_of, tuned_network

    known_as = circumstances_of(model, device_name(device), dtype)
    dtypes = dtypes_of(dtype, fast_bfloat16=has_fast_bfloat16(device))
    return tuned_network(model, device, dtypes, StoredChoices(tuning_folder()), known_as)


def tuning_folder() -> Path | None:
    """Where choices of `masklet_server.engine.network.tuning` are kept; None: nowhere."""
    try:
        return cache_folder() / "tuning"
    except RuntimeError:  # this user has no home directory
        return None


def _accelerate(network: Network, weights: SAM2Base, *, required: bool) -> None:
    """Use OpenVINO for what it computes faster. If it fails, torch computes everything, unless it is required.

    Raises:
        FailedPrecondition: OpenVINO is required, and fails.
    """
    from masklet_server.engine.network.openvino.choose import accelerate

    try:
        folder = cache_folder() / "openvino"
    except RuntimeError:  # this user has no home directory
        folder = None
    try:
        accelerate(network, weights, folder)
    except Exception as error:
        if required:
            raise FailedPrecondition(f"OpenVINO cannot be used: {error}") from error
        logger.warning("OpenVINO cannot be used, so torch computes everything: %s", error)


def _network_by_torch(model: SAM2Base, device: torch.device, dtype: str, *, graphs: bool) -> Network:
    if dtype != "auto":
        if dtype not in DTYPES:
            raise InvalidArgument.of("dtype", f"is {dtype!r}, must be auto, float32 or bfloat16")
        return Network(model, device, DTYPES[dtype], graphs=graphs)
    if not has_fast_bfloat16(device):
        return Network(model, device, graphs=graphs)
    if device.type == "cuda":
        return Network(model, device, torch.bfloat16, graphs=graphs)
    return quickest([Network(copy.deepcopy(model), device, torch.bfloat16), Network(model, device)])


def quickest(networks: Sequence[Network], *, rounds: int = 7, seconds: float = 3.0) -> Network:
    """The network that encodes a picture in the least time.

    The networks take turns, and the best round of each counts, so that other work on the machine does not decide. The
    first round does not count.

    Args:
        networks: The same model in several dtypes.
        rounds: Largest number of rounds, at least three.
        seconds: No round begins after this time, except the first three.
    """
    start = time.perf_counter()
    timings: list[list[float]] = []
    while len(timings) < 3 or (len(timings) < rounds and time.perf_counter() - start < seconds):
        timings.append([seconds_per_picture(network) for network in networks])
    best = [min(times) for times in zip(*timings[1:], strict=True)]
    return networks[best.index(min(best))]


@torch.inference_mode()
def seconds_per_picture(network: Network) -> float:
    """How long the network takes to encode one picture."""
    pixels = torch.zeros(1, network.image_size, network.image_size, 3, dtype=torch.uint8)
    start = time.perf_counter()
    network.encode_pixels(pixels)
    return time.perf_counter() - start
