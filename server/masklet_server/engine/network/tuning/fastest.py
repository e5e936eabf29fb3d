"""The fastest of several ways to compute the same thing. A way that is wrong or fails is never taken."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Results = Sequence[Tensor]

# A way must be faster than the plain one by so much. Smaller differences are chance, and the plain one is known better.
MARGIN = 0.03
ROUNDS = 7


@dataclass(frozen=True)
class Candidate:
    """One way to compute.

    Attributes:
        name: As it is written into logs and files.
        run: Computes, waits for the device, and returns what is compared. The first call may also prepare: build a
            network, record a graph.
    """

    name: str
    run: Callable[[], Results]


@dataclass(frozen=True)
class Verdict:
    """What measuring has found.

    Attributes:
        name: Of the way that is taken.
        seconds: Least time of each way that was timed, by its name.
        left_out: Why the others were not timed, by their names.
    """

    name: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def fastest(
    what: str,
    candidates: Sequence[Candidate],
    fault: Callable[[Results, Results], str],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Verdict:
    """Choose the candidate that takes the least time, among those that give what the first one gives.

    Candidates take turns, and the best round of each counts, so that other work on the machine does not decide.

    Args:
        what: What is computed, for the log.
        candidates: The first one is the plain way, whose results are right. It is taken where no other is better.
        fault: Takes the results of a candidate and those of the plain way; returns what is wrong, "" if nothing is.
        seconds: No candidate is tried and no round begins after this time, but one round is always made.
        clock: Gives the time in seconds.

    Raises:
        Exception: Whatever the plain way raises.
    """
    begun = clock()
    plain, *others = candidates
    right = plain.run()
    left_out: dict[str, str] = {}
    timed = [plain]
    for candidate in others:
        why = _fault_of(candidate, right, fault) if clock() - begun <= seconds else "there was no time left to try it"
        if why:
            left_out[candidate.name] = why
            logger.info("%s: %s is left out: %s", what, candidate.name, why)
        else:
            timed.append(candidate)
    best: dict[str, float] = {}
    for number in range(ROUNDS if len(timed) > 1 else 0):
        if number > 0 and clock() - begun > seconds:
            break
        for candidate in list(timed):
            start = clock()
            try:
                candidate.run()
            except Exception as error:
                if candidate is plain:
                    raise
                timed.remove(candidate)
                best.pop(candidate.name, None)
                left_out[candidate.name] = _as_reason(error)
                logger.info("%s: %s is left out: %s", what, candidate.name, left_out[candidate.name])
                continue
            best[candidate.name] = min(best.get(candidate.name, float("inf")), clock() - start)
    chosen = min(best, key=best.__getitem__, default=plain.name)
    if best and best[chosen] > (1 - MARGIN) * best[plain.name]:
        chosen = plain.name
    figures = ", ".join(f"{name} {1e3 * least:.2f} ms" for name, least in best.items())
    logger.info("%s: %s is taken%s", what, chosen, f" ({figures})" if figures else "")
    return Verdict(chosen, best, left_out)


def _fault_of(candidate: Candidate, right: Results, fault: Callable[[Results, Results], str]) -> str:
    """Why a candidate cannot be taken; empty if it can."""
    try:
        return fault(candidate.run(), right)
    except Exception as error:  # noqa: BLE001 - whatever it is, the plain way goes on, and the log says why
        reason = _as_reason(error)
    # Here and not above, because the error holds what the candidate has allocated.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return reason


def _as_reason(error: Exception) -> str:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "it ran out of memory"
    return f"it raised {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def far_off(found: Results, right: Results, *, tolerance: float) -> str:
    """Which of several tensors differs by more than `tolerance` of its greatest number; "" if none does."""
    if [one.shape for one in found] != [one.shape for one in right]:
        return f"it gives other shapes: {[list(one.shape) for one in found]}"
    for number, (one, other) in enumerate(zip(found, right, strict=True)):
        if not bool(one.isfinite().all()):
            return f"result {number} has numbers that are not finite"
        difference = float((one.float() - other.float()).abs().max() / other.float().abs().max().clamp(min=1e-12))
        if not difference <= tolerance:
            return f"result {number} differs by {difference:.2g} of its greatest number"
    return ""


# Logits nearer to zero than this part of the greatest one may have either sign: rounding decides.
_UNSURE = 0.05
_LEAST_IOU = 0.99
# As for OpenVINO's parts: bfloat16 itself differs from float32 by 0.05.
_TOLERANCE = 0.2


def other_masks(found: Results, right: Results) -> str:
    """What is wrong with a step's results.

    Args:
        found: Mask logits ``[B, 1, 4h, 4w]``, then other tensors of the step.
        right: The same by the plain way.
    """
    logits, wanted = found[0].float(), right[0].float()
    if logits.shape != wanted.shape:
        return f"it gives logits {list(logits.shape)}, not {list(wanted.shape)}"
    if not bool(logits.isfinite().all()):
        return "it gives logits that are not finite"
    sure = wanted.abs() > _UNSURE * wanted.abs().max()
    masks, wanted_masks = (logits > 0) & sure, (wanted > 0) & sure
    union = int((masks | wanted_masks).sum())
    iou = int((masks & wanted_masks).sum()) / union if union else 1.0
    if iou < _LEAST_IOU:
        return f"it gives other masks: IoU {iou:.3f} with the plain ones"
    return far_off(found[1:], right[1:], tolerance=_TOLERANCE)
