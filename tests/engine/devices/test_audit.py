"""The whole engine on a pretended GPU: nothing mixes devices, and the host waits no more often than it must.

Each case is run twice, on the CPU and on a device that is not there, and must give the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from masklet.prompts import Prompt
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.memory.policies import MemoryPolicy
from masklet_server.engine.memory.snapshots import BankSnapshots
from masklet_server.engine.memory.tensor_file import TensorFile
from masklet_server.engine.network.network import Network
from masklet_server.engine.serving.batch import run_jobs, run_picture
from masklet_server.engine.serving.image_predictor import PictureCache
from masklet_server.engine.serving.jobs import ClearPrompts, ConsolidatePrompts, FrameOutput, ObjectTask, TrackingJob
from masklet_server.engine.serving.picture_jobs import PictureJob, PicturePrompt
from masklet_server.masks.edges import Edges
from masklet_server.models.build import build_model
from masklet_server.models.registry import Registry
from tests.support import synthetic
from tests.support.devices.pretend import Traffic, pretend_devices
from tests.support.engine import (
    HEIGHT,
    SIZE,
    WIDTH,
    backward,
    click,
    frame,
    job,
    new_bank,
    new_history,
    prompted,
    stream,
)

Found = list[object]
"""Masks, scores and logits, in the order in which a case finds them."""

BOX = [10, 10, 60, 60]
MASK = np.zeros((HEIGHT, WIDTH), np.bool_)
MASK[20:60, 30:70] = True


@functools.cache
def network(device: str, dtype: torch.dtype = torch.float32) -> Network:
    return Network(build_model(Registry.load().get("nano"), image_size=SIZE), torch.device(device), dtype)


def shown(outputs: Sequence[FrameOutput]) -> Found:
    found: Found = []
    for output in outputs:
        for one in (*output.objects, *(each for some in output.prompts for each in some)):
            found += [one.mask, one.predicted_iou, one.object_score]
            found += [] if one.logits is None else [one.logits]
    return found


def run(net: Network, *jobs: TrackingJob) -> Found:
    return shown(run_jobs(net, jobs))


def every_prompt(net: Network) -> Found:
    """Clicks, a box and a mask, with guided edges and logits; corrections in the window, by clicks and by a mask."""
    context = replace(stream(return_logits=True), edges=Edges.GUIDED)
    banks = [new_bank(correction_window=4) for _ in range(3)]
    first = [[click()], [Prompt(object_id=2, box=BOX)], [Prompt(object_id=3, mask=MASK)]]
    found: Found = []
    for index in range(4):
        tasks = [ObjectTask(bank, prompts if index == 0 else []) for bank, prompts in zip(banks, first, strict=True)]
        found += run(net, replace(job(banks[0], index), tasks=tasks, stream=context))
    more = Prompt(point_coords=[(12.0, 12.0)], point_labels=[0], frame_index=3)
    found += run(net, replace(prompted(banks[0], 3, more), stream=context))
    found += run(net, prompted(banks[1], 3, Prompt(object_id=2, mask=MASK, frame_index=3)))
    tasks = [ObjectTask(bank) for bank in banks]
    return found + run(net, replace(job(banks[0], 4), tasks=tasks, stream=context))


def unequal_memories(net: Network) -> Found:
    """Objects that began on different frames, in one batch; two streams together."""
    banks = [new_bank() for _ in range(3)]
    other = new_bank()
    found: Found = []
    for index in range(18):
        tasks = [ObjectTask(bank, [click(i)] if index == i else []) for i, bank in enumerate(banks) if index >= i]
        jobs = [replace(job(banks[0], index), tasks=tasks)]
        if index < 3:
            jobs.append(job(other, index, [click(1)] if index == 0 else [], name="b", seed=1))
        found += run(net, *jobs)
    return found


def policy(kind: MemoryPolicy, net: Network) -> Found:
    """A policy that chooses what is remembered."""
    bank = new_bank(memory_policy=kind)
    return [x for index in range(9) for x in run(net, job(bank, index, [click()] if index == 0 else []))]


def history(net: Network) -> Found:
    """Forward, backward, cleared and consolidated, with memories that move to a file and back."""
    memory = new_history(TensorFile(10**9))
    found = run(net, prompted(memory, 8, click(frame_index=8)))
    for index in range(8, 18):
        found += run(net, job(memory, index))
    for index in range(8, -1, -1):
        found += run(net, backward(memory, index))
    found += run(net, prompted(memory, 4, click(1, frame_index=4)))
    found += run(net, ClearPrompts(stream(), frame(4), memory))
    found += run(net, ConsolidatePrompts(stream(), [memory]))
    return found + run(net, job(memory, 5))


def dumped(net: Network) -> Found:
    """Banks that are dumped, loaded, snapshot and rewound."""
    bank = new_bank(correction_window=3)
    snapshots = BankSnapshots(TensorFile(10**9))
    found: Found = []
    for index in range(8):
        found += run(net, job(bank, index, [click()] if index == 0 else []))
        snapshots.put(bank, is_needed=index == 0)
    for data in (bank.dump(), snapshots.get(7)):
        loaded = MemoryBank.load(data, model="nano", device=net.device)
        found += run(net, job(loaded, 8))
    bank.rewind(6)
    return found + run(net, job(bank, 7))


def pictures(net: Network) -> Found:
    """Points, boxes, masks and logits on a picture, one candidate and three, by pixels and by its id."""
    picture = synthetic.frame(0, HEIGHT, WIDTH)
    cache = PictureCache(2**26)
    point = np.array([synthetic.BLOBS[0].center(0, HEIGHT, WIDTH)], np.float32)
    prompts = [
        PicturePrompt(point_coords=point),
        PicturePrompt(box=np.array(BOX, np.float32)),
        PicturePrompt(point_coords=point, box=np.array(BOX, np.float32)),
        PicturePrompt(mask=MASK),
        PicturePrompt(point_coords=point, mask_input=np.ones((net.logits_size, net.logits_size), np.float32)),
    ]
    first = run_picture(net, PictureJob("nano", "s", picture, prompts, multimask_output=True), cache)
    again = PictureJob("nano", "s", first.image_id, prompts, edges=Edges.GUIDED)
    results = [*first.results, *run_picture(net, again, cache).results]
    return [part for some in results for one in some for part in (one.mask, one.predicted_iou, one.logits)]


CASES: dict[str, Callable[[Network], Found]] = {
    "every prompt": every_prompt,
    "unequal memories": unequal_memories,
    "distractor-aware": functools.partial(policy, MemoryPolicy.DISTRACTOR_AWARE),
    "motion-aware": functools.partial(policy, MemoryPolicy.MOTION_AWARE),
    "history": history,
    "dumped": dumped,
    "pictures": pictures,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_everything_stays_on_its_device_and_gives_the_same_numbers(
    case: Callable[[Network], Found],
) -> None:
    """On the second device, because what forgets to name its device lands on the first."""
    expected = case(network("cpu"))
    with pretend_devices():
        found = case(network("cuda:1"))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        check_close(np.asarray(one), np.asarray(other))


def check_close(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """Logits within a thousandth; masks in all but a thousandth of their pixels, where a logit is nearly 0.

    Guided edges are drawn by another program on a CPU than on a GPU, and the two round differently.
    """
    if found.dtype == np.bool_:
        assert np.count_nonzero(found != expected) <= found.size / 1000
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_bfloat16_stays_on_its_device() -> None:
    """Which kernels a GPU takes cannot be tried here; that they get tensors of one device can."""
    with pretend_devices():
        net = network("cuda:0", torch.bfloat16)
        found = every_prompt(net)
    assert all(np.isfinite(np.asarray(part, np.float64)).all() for part in found)


def traffic_of_a_frame(objects: int, edges: Edges, streams: int = 1) -> Traffic:
    """What crosses between host and device while a frame of each stream is tracked, with so many objects each."""
    with pretend_devices() as traffic:
        net = network("cuda:0")
        banks = [[new_bank() for _ in range(objects)] for _ in range(streams)]
        for index in range(4):
            jobs = [
                replace(
                    job(some[0], index),
                    frame=replace(frame(index), height=HEIGHT + number),  # no two videos are of one size
                    tasks=[ObjectTask(bank, [click(i % 2)] if index == 0 else []) for i, bank in enumerate(some)],
                    stream=replace(stream(str(number)), edges=edges),
                )
                for number, some in enumerate(banks)
            ]
            traffic.waits.clear()
            traffic.uploads.clear()
            run(net, *jobs)
    return traffic


@pytest.mark.parametrize("edges", Edges)
def test_the_host_waits_as_often_for_four_objects_as_for_one(edges: Edges) -> None:
    """It waits for the number of edges of all masks, and for the edges and the scores; nothing else is read."""
    one, four = traffic_of_a_frame(1, edges), traffic_of_a_frame(4, edges)
    assert one.waits == four.waits
    assert one.uploads == four.uploads
    assert sum(one.waits.values()) == 2, one.waits
    # The picture; ages of memories and distances of pointers; guided edges need the picture again.
    assert sum(one.uploads.values()) == (3 if edges is Edges.GUIDED else 2), one.uploads


def test_the_host_waits_as_often_for_four_streams_as_for_one() -> None:
    one, four = traffic_of_a_frame(1, Edges.NONE), traffic_of_a_frame(1, Edges.NONE, streams=4)
    assert one.waits == four.waits
    assert one.uploads == four.uploads
