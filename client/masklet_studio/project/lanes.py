"""The timeline's lane of an object: where it is tracked, seen, lost and found again."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from masklet_studio.project.history import GivenPrompt
from masklet_studio.project.mask_log import Stored
from masklet_studio.project.records import VISIBLE

SEEN, UNSEEN = 1, 2
_NO_IOU = 255


def lane(object_id: int, masks: Mapping[int, Stored], prompts: Iterable[GivenPrompt], count: int) -> dict[str, Any]:
    """A lane as the page draws it.

    Args:
        object_id: The object.
        masks: Its masks by frame, in ascending order.
        prompts: Its prompts.
        count: The number of frames in the video.
    """
    prompts = list(prompts)
    ious = bytearray([_NO_IOU]) * count
    for frame, stored in masks.items():
        if frame < count:
            ious[frame] = round(254 * min(max(stored.iou, 0.0), 1.0))
    return {
        "object": object_id,
        "runs": [list(run) for run in runs(masks)],
        "ious": base64.b64encode(ious).decode(),
        "corrections": sorted(prompt.frame for prompt in prompts if prompt.corrects),
        "untracked": sorted(prompt.frame for prompt in prompts if _is_untracked(prompt, masks)),
        "events": [[frame, what] for frame, what in events(masks)],
    }


def _is_untracked(prompt: GivenPrompt, masks: Mapping[int, Stored]) -> bool:
    """Whether a prompt changes what is tracked already, and the mask after it is older than it."""
    after = masks.get(prompt.frame + 1)
    return (prompt.corrects or prompt.mask is not None) and after is not None and after.revision < prompt.operation


def runs(masks: Mapping[int, Stored]) -> Iterator[tuple[int, int, int]]:
    """First and last frame of each run of frames on which the object is `SEEN`, or tracked and `UNSEEN`."""
    begun: tuple[int, int, int] | None = None
    for frame, stored in masks.items():
        state = SEEN if stored.flags & VISIBLE else UNSEEN
        if begun is not None and begun[1] == frame - 1 and begun[2] == state:
            begun = (begun[0], frame, state)
            continue
        if begun is not None:
            yield begun
        begun = (frame, frame, state)
    if begun is not None:
        yield begun


def events(masks: Mapping[int, Stored]) -> Iterator[tuple[int, str]]:
    """Frames on which the object is "lost" or "found" again."""
    before, was_seen, seen_ever = -1, False, False
    for frame, stored in masks.items():
        is_seen = bool(stored.flags & VISIBLE)
        if frame == before + 1 and was_seen and not is_seen:
            yield frame, "lost"
        if is_seen and not was_seen and seen_ever and before >= 0:
            yield frame, "found"
        seen_ever = seen_ever or is_seen
        before, was_seen = frame, is_seen
