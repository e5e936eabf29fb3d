"""One batch of jobs on the device: from pixels and prompts to masks. Runs on the engine's thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from sam2.modeling.sam2_base import NO_OBJ_SCORE
from torch import Tensor

from masklet_server.engine.memory.object_memory import Memory
from masklet_server.engine.network.network import Network
from masklet_server.engine.network.tensors import Features
from masklet_server.engine.serving.jobs import (
    EncodedFrame,
    FrameJob,
    FrameOutput,
    ObjectOutput,
    ObjectTask,
    PictureJob,
    PictureOutput,
)
from masklet_server.engine.serving.mask_runs import runs_of
from masklet_server.engine.serving.picture import PictureCache, encode_picture, find_picture, segment
from masklet_server.engine.serving.step import Work, apply_prompt, settle_prompts, track
from masklet_server.masks.runs import Runs

# Frames encoded and objects stepped in one pass; more are done in several, which bounds the device's memory.
MAX_ENCODE_BATCH = 8
MAX_STEP_BATCH = 16
# Of full-size logits that are there at once.
MAX_SHOWN_PIXELS = 2**24


class EngineObserver(Protocol):
    """Who wants to know what the engine does; called on the engine's thread."""

    def on_encode(self, batch_size: int, seconds: float) -> None:
        """So many pictures were encoded together."""

    def on_step(self, batch_size: int, seconds: float) -> None:
        """So many objects were prompted and tracked together."""

    def on_queue(self, seconds: float) -> None:
        """A job waited so long for the device."""


@torch.inference_mode()
def run_frames(network: Network, jobs: Sequence[FrameJob], observer: EngineObserver | None = None) -> list[FrameOutput]:
    """Prompt and track the objects of several streams, each on a frame. A failure leaves every bank as it was."""
    before = [task.bank.copy() for job in jobs for task in job.tasks]
    try:
        return _run_frames(network, jobs, observer)
    except BaseException:
        for task, saved in zip((task for job in jobs for task in job.tasks), before, strict=True):
            task.bank.restore(saved)
        raise


def _run_frames(network: Network, jobs: Sequence[FrameJob], observer: EngineObserver | None) -> list[FrameOutput]:
    frames = _encode(network, jobs, observer)
    begun = time.perf_counter()
    works = [
        [Work(task.bank, frame.features, job.frame_index, job.clip_length, job.reverse) for task in job.tasks]
        for job, frame in zip(jobs, frames, strict=True)
    ]
    for job in jobs:
        if job.settle:
            for task in job.tasks:
                settle_prompts(network, task.bank)
    prompted = [
        [_prompt(network, work, task, job) for task, work in zip(job.tasks, job_works, strict=True)]
        for job, job_works in zip(jobs, works, strict=True)
    ]
    to_track = [work for job, job_works in zip(jobs, works, strict=True) if job.track for work in job_works]
    tracked = iter(track(network, to_track, max_batch=MAX_STEP_BATCH))
    shown = [
        (
            _show(network, [next(tracked) for _ in job.tasks if job.track], job),
            [_show(network, memories, job) for memories in job_prompted],
        )
        for job, job_prompted in zip(jobs, prompted, strict=True)
    ]
    step_seconds = time.perf_counter() - begun
    if observer is not None:
        observer.on_step(sum(len(job.tasks) for job in jobs), step_seconds)
    return [
        FrameOutput(*outputs, encode_seconds=frame.seconds, step_seconds=step_seconds)
        for outputs, frame in zip(shown, frames, strict=True)
    ]


@torch.inference_mode()
def run_picture(
    network: Network, job: PictureJob, cache: PictureCache, observer: EngineObserver | None = None
) -> PictureOutput:
    """Segment a picture, encoding it unless the cache has it.

    Raises:
        NotFound: The job names a picture that the cache has let go.
        InvalidArgument: A prompt outside the picture.
    """
    start = time.perf_counter()
    if job.pixels is None:
        image_id, picture = job.image_id, find_picture(cache, job.model, job.image_id)
    else:
        image_id = cache.id_of(job.pixels)
        known = cache.get(job.model, image_id)
        picture = known or encode_picture(network, job.pixels)
        if known is None:
            cache.put(job.model, image_id, picture)
            if observer is not None:
                observer.on_encode(1, time.perf_counter() - start)
    results = segment(network, picture, job.prompts, multimask=job.multimask_output)
    return PictureOutput(image_id, picture.height, picture.width, results)


def _encode(network: Network, jobs: Sequence[FrameJob], observer: EngineObserver | None) -> list[EncodedFrame]:
    """The features of each job's frame; those of a stream that runs alone are encoded some frames ahead."""
    known = [None if job.recent is None else job.recent.get(job.frame_index) for job in jobs]
    unknown = [job for job, encoded in zip(jobs, known, strict=True) if encoded is None]
    if not unknown:
        return [encoded for encoded in known if encoded is not None]
    start = time.perf_counter()
    ahead = jobs[0].upcoming[: MAX_ENCODE_BATCH - 1] if len(jobs) == 1 and jobs[0].recent is not None else ()
    features = _encode_pixels(network, [*(job.pixels for job in unknown), *ahead])
    seconds = time.perf_counter() - start
    if observer is not None:
        observer.on_encode(len(features), seconds)
    fresh = [EncodedFrame(each, seconds / (1 + len(ahead))) for each in features]
    for job, encoded in zip(unknown, fresh, strict=False):
        if job.recent is not None:
            # Its own copy: a view would keep the features of all streams in the batch.
            kept = encoded if len(unknown) == 1 else replace(encoded, features=encoded.features.clone())
            job.recent.put(job.frame_index, kept)
    for steps, encoded in enumerate(fresh[len(unknown) :], start=1):
        assert jobs[0].recent is not None
        jobs[0].recent.put(jobs[0].frame_index + (-steps if jobs[0].reverse else steps), encoded)
    made = iter(fresh)
    return [next(made) if encoded is None else encoded for encoded in known]


def _encode_pixels(network: Network, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[Features]:
    features: list[Features] = []
    for start in range(0, len(pictures), MAX_ENCODE_BATCH):
        batch = np.stack(pictures[start : start + MAX_ENCODE_BATCH])
        features += network.encode_pixels(torch.from_numpy(batch))
    return features


def _prompt(network: Network, work: Work, task: ObjectTask, job: FrameJob) -> list[Memory]:
    """Do to one object what its task says, short of tracking it; what there is to be shown."""
    shown = []
    if task.clear:
        task.bank.clear_prompts(job.frame_index)
        shown.append(task.bank.found(job.frame_index) or _nothing(network))
    for prompt in task.prompts:
        shown.append(apply_prompt(network, work, prompt, height=job.height, width=job.width))
    return shown


def _nothing(network: Network) -> Memory:
    """What is shown where nothing is known: upstream's placeholder for missing objects."""
    side = network.logits_size
    return Memory(
        pointer=torch.empty(0),
        object_score=torch.tensor([NO_OBJ_SCORE], device=network.device),
        predicted_iou=torch.tensor(0.0, device=network.device),
        logits=torch.full((1, side, side), NO_OBJ_SCORE, device=network.device),
    )


def _logits(memory: Memory) -> Tensor:
    assert memory.logits is not None
    return memory.logits


def _show(network: Network, memories: Sequence[Memory], job: FrameJob) -> list[ObjectOutput]:
    """Masks at the video's size; a few objects at a time, because full-size logits of many would be gigabytes."""
    if not memories:
        return []
    logits = torch.stack([_logits(memory) for memory in memories])
    at_once = max(1, MAX_SHOWN_PIXELS // (job.height * job.width))
    runs: list[Runs] = []
    for some in torch.split(logits, at_once):
        runs += runs_of(network.resize(some, job.height, job.width)[:, 0] > 0)
    # One transfer for all objects: each is a wait for the device.
    scores = torch.stack([torch.cat([m.predicted_iou.view(1), m.object_score.view(1)]) for m in memories]).tolist()
    low = logits[:, 0].float().cpu().numpy() if job.return_logits else [None] * len(memories)
    return [ObjectOutput(*parts) for parts in zip(runs, *zip(*scores, strict=True), low, strict=True)]
