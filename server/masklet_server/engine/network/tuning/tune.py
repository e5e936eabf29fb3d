"""Building a network for a GPU in the way that is the fastest there, as measured or as measured at an earlier start."""

from __future__ import annotations

import copy
import functools
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Literal

import torch
from sam2.modeling.sam2_base import SAM2Base

from masklet_server.engine.network.graphs import RUNS_BEFORE
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tuning.choice import (
    BUCKETS,
    Choice,
    Circumstances,
    StoredChoices,
    driver_version,
    fingerprint,
)
from masklet_server.engine.network.tuning.fastest import Candidate, Results, far_off, fastest, other_masks
from masklet_server.engine.network.tuning.kernels import KnownKernels, MeasuredKernels
from masklet_server.engine.network.tuning.trial import Trial

logger = logging.getLogger(__name__)

Dtype = Literal["float32", "bfloat16", "float16"]

Fault = Callable[[Results, Results], str]
Ways = Mapping[str, Callable[[], Results]]

# For each of the four questions below; kernels have this for all shapes of a dtype together.
_SECONDS = 1.5
_SHAPES = 3
# Encoders give the same features up to rounding, whatever the number of pictures in a pass.
_TOLERANCE = 0.1
# Sizes of batches that are not among the buckets.
_ODD_SIZES = (3, 5, 7)
_PICTURES = (1, 2, 4)


def circumstances_of(model: SAM2Base, device_name: str, dtype: str) -> Circumstances:
    """What a choice for this model depends on."""
    return Circumstances(
        device=device_name,
        driver=driver_version(),
        torch=torch.__version__,
        masklet=metadata.version("masklet"),
        model=fingerprint(model),
        dtype=dtype,
    )


def dtypes_of(asked: str, *, fast_bfloat16: bool) -> Sequence[Dtype]:
    """The dtypes among which to choose, the one that is taken without measuring first.

    Args:
        asked: As the settings ask for it, "auto" or "bfloat16".
        fast_bfloat16: The hardware has instructions for it.
    """
    if asked == "bfloat16":
        return ("bfloat16",)
    return ("bfloat16", "float16") if fast_bfloat16 else ("float32", "float16")


def tuned_network(
    model: SAM2Base, device: torch.device, dtypes: Sequence[Dtype], stored: StoredChoices, known_as: Circumstances
) -> Network:
    """A network that computes as was chosen at an earlier start in the same circumstances, or else as is measured now.

    Args:
        model: With weights, in float32 on the CPU; taken over.
        device: Where to compute.
        dtypes: Among which to choose, the plain one first.
        stored: Where choices are kept.
        known_as: The circumstances.
    """
    choice = stored.get(known_as)
    if choice is None:
        network, choice = measured_network(model, device, dtypes)
        stored.put(known_as, choice)
        logger.info("%s was measured: %s", known_as.device, choice)
    else:
        network = Network(model, device, getattr(torch, choice.dtype), kernels=KnownKernels(choice.kernels))
        network.compute_as(graphs=choice.graphs, pictures=choice.pictures, buckets=choice.buckets)
        logger.info("%s was measured at an earlier start: %s", known_as.device, choice)
    network.tuning = str(choice)
    return network


def measured_network(model: SAM2Base, device: torch.device, dtypes: Sequence[Dtype]) -> tuple[Network, Choice]:
    """Measure in which way the model computes fastest on the device, one question after the other."""
    dtype, network, kernels = _fastest_dtype(model, device, dtypes)
    trial = Trial(network)
    recorded = _variant(network, graphs=True)
    recording: Ways = {
        "without": functools.partial(trial.track, network),
        "with": _recorded(functools.partial(trial.track, recorded)),
    }
    graphs = _choose("CUDA graphs", recording) == "with"
    buckets: tuple[int, ...] = ()
    if graphs:
        # Sizes that are rare are not recorded; padded to a size that is recorded they may still be faster.
        padded = _variant(network, graphs=True, buckets=BUCKETS)
        ways: Ways = {
            "none": functools.partial(trial.track, network, _ODD_SIZES),
            "padded": _recorded(functools.partial(trial.track, padded, _ODD_SIZES)),
        }
        buckets = BUCKETS if _choose("buckets", ways) == "padded" else ()
    network = _variant(network, graphs=graphs, buckets=buckets)
    passes = {str(count): _recorded(functools.partial(trial.encode, network, count)) for count in _PICTURES}
    pictures = int(_choose("pictures a pass", passes, functools.partial(far_off, tolerance=_TOLERANCE)))
    network.compute_as(graphs=graphs, pictures=pictures, buckets=buckets)
    return network, Choice(dtype, kernels.names, graphs, pictures, buckets)


def _fastest_dtype(
    model: SAM2Base, device: torch.device, dtypes: Sequence[Dtype]
) -> tuple[Dtype, Network, MeasuredKernels]:
    built: dict[str, tuple[Network, MeasuredKernels]] = {}
    # The last dtype gets the model itself, the others a copy.
    weights: dict[str, SAM2Base] = {one: copy.deepcopy(model) for one in dtypes[:-1]} | {dtypes[-1]: model}

    def network(dtype: Dtype) -> Network:
        if dtype not in built:
            number = getattr(torch, dtype)
            kernels = MeasuredKernels(device, number, seconds=_SECONDS / _SHAPES)
            built[dtype] = Network(weights.pop(dtype), device, number, kernels=kernels), kernels
        return built[dtype][0]

    trial = Trial(network(dtypes[0]))
    ways = {str(one): (lambda one=one: trial.track(network(one))) for one in dtypes}
    chosen = _choose("dtype", ways)
    dtype = next(one for one in dtypes if one == chosen)
    return dtype, *built[dtype]


def _variant(network: Network, *, graphs: bool, buckets: Sequence[int] = ()) -> Network:
    """The same weights, run in another way."""
    variant = copy.copy(network)
    variant.compute_as(graphs=graphs, pictures=1, buckets=buckets)
    return variant


def _recorded(run: Callable[[], Results]) -> Callable[[], Results]:
    """The same, but the first call goes on until all graphs are recorded."""
    calls = itertools.count()

    def repeated() -> Results:
        return [run() for _ in range(1 if next(calls) else RUNS_BEFORE + 2)][-1]

    return repeated


def _choose(what: str, ways: Ways, fault: Fault = other_masks) -> str:
    candidates = [Candidate(name, run) for name, run in ways.items()]
    return fastest(what, candidates, fault, seconds=_SECONDS).name
