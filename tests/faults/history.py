"""What a client saw of a stream, and the checks that nothing was lost, doubled, swapped or changed on the way."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import masklet


@dataclass(frozen=True)
class Seen:
    """One result.

    Attributes:
        sequence: The number of the result.
        frame_index: The frame.
        revision: 0 for a frame's first result; -1 for the answer to a prompt.
        objects: A digest of everything that is told of each object, by its id.
        skipped: Frames before this one that were not tracked.
    """

    sequence: int
    frame_index: int
    revision: int
    objects: tuple[tuple[int, str], ...]
    skipped: tuple[int, ...] = ()


@dataclass
class History:
    """What a client saw of one stream, in order.

    Attributes:
        results: All results.
        given: How many prompts the client has given.
        end: "done", or the name and message of the error that ended the stream.
        frame_count: How many frames the video has; None where that is not known.
        after_end: Results that came after the end.
    """

    results: list[Seen] = field(default_factory=list)
    given: int = 0
    end: str = ""
    frame_count: int | None = None
    after_end: int = 0

    def add(self, result: masklet.FrameResult | masklet.PromptResult) -> None:
        """Take in what the client sees."""
        if self.end:
            self.after_end += 1
        if isinstance(result, masklet.PromptResult):
            answer = ((result.object.object_id, digest(result.object)),)
            self.results.append(Seen(result.sequence, result.frame_index, -1, answer))
            return
        objects = tuple((number, digest(one)) for number, one in result.objects.items())
        self.results.append(
            Seen(result.sequence, result.frame_index, result.revision, objects, result.skipped_frame_indices)
        )


def digest(found: masklet.ObjectResult) -> str:
    """A short word for everything that is told of an object, the mask to the last pixel."""
    told = (found.rle["counts"], found.rle["size"], found.box, found.area, found.visible, found.event)
    scores = (found.predicted_iou.hex(), found.object_score.hex())
    return hashlib.sha256(repr((told, scores)).encode()).hexdigest()[:16]


def violations(history: History, reference: History | None = None, *, may_fail: bool = False) -> list[str]:
    """What is wrong with a history; nothing where all is as it should be.

    Args:
        history: What a client saw.
        reference: What a client saw of the same stream without faults, if the same masks are promised.
        may_fail: The stream may end with an error, as where the server has died and nobody has its input any more. Then
            what came before must be right.
    """
    found = [
        *_sequences(history.results),
        *_frames(history.results),
        *_revisions(history.results),
        *_prompts(history, complete=history.end == "done"),
        *_end(history, may_fail=may_fail),
    ]
    if reference is not None:
        found += _differences(history.results, reference.results, complete=history.end == "done")
    return found


def _sequences(results: Sequence[Seen]) -> Iterable[str]:
    for place, seen in enumerate(results, 1):
        if seen.sequence != place:
            yield f"result {place} has the sequence {seen.sequence}"
            return  # all further ones follow from it


def _frames(results: Sequence[Seen]) -> Iterable[str]:
    for (frame_index, revision), count in Counter(
        (one.frame_index, one.revision) for one in results if one.revision >= 0
    ).items():
        if count > 1:
            yield f"frame {frame_index}, revision {revision} came {count} times"
    expected = 0
    for seen in results:
        if seen.revision == 0:
            gap = [index for index in range(expected, seen.frame_index) if index not in seen.skipped]
            if gap:
                yield f"frames {gap} are missing before frame {seen.frame_index}"
            if seen.frame_index < expected:
                yield f"frame {seen.frame_index} came after frame {expected - 1}"
            expected = max(expected, seen.frame_index + 1)


def _revisions(results: Sequence[Seen]) -> Iterable[str]:
    last: dict[int, int] = {}
    for seen in results:
        if seen.revision > 0 and seen.revision != last.get(seen.frame_index, -1) + 1:
            yield f"frame {seen.frame_index}: revision {seen.revision} came after {last.get(seen.frame_index)}"
        if seen.revision >= 0:
            last[seen.frame_index] = seen.revision


def _prompts(history: History, *, complete: bool) -> Iterable[str]:
    answers = sum(one.revision == -1 for one in history.results)
    if answers > history.given or (complete and answers < history.given):
        yield f"{history.given} prompts were given, and {answers} were answered"


def _end(history: History, *, may_fail: bool) -> Iterable[str]:
    if history.after_end:
        yield f"{history.after_end} results came after the end"
    if history.end != "done" and not may_fail:
        yield f"the stream ended with {history.end or 'nothing'}"
    frames = sum(one.revision == 0 for one in history.results) + sum(len(one.skipped) for one in history.results)
    if history.end == "done" and history.frame_count is not None and frames != history.frame_count:
        yield f"{frames} of {history.frame_count} frames came"


def _differences(results: Sequence[Seen], reference: Sequence[Seen], *, complete: bool) -> Iterable[str]:
    if complete and len(results) != len(reference):
        yield f"there are {len(results)} results, without faults {len(reference)}"
    for place, (seen, should) in enumerate(zip(results, reference, strict=False), 1):
        if (seen.frame_index, seen.revision) != (should.frame_index, should.revision):
            yield (
                f"result {place} is of frame {seen.frame_index}, revision {seen.revision}; without faults of frame "
                f"{should.frame_index}, revision {should.revision}"
            )
            return
        if seen.objects != should.objects:
            yield (
                f"result {place}, frame {seen.frame_index}, revision {seen.revision}: objects differ, {seen.objects} "
                f"without faults {should.objects}"
            )
            return


def renumbered(results: Iterable[Seen]) -> list[Seen]:
    """The same results with sequences from 1, as a server would number them that had made them so."""
    return [replace(one, sequence=place) for place, one in enumerate(results, 1)]
