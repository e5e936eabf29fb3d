"""The responses that are kept for a client."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from masklet_server.masks.encoding import EncodedMask, MaskEncoding
from masklet_server.session import replies
from masklet_server.session.resuming.kept_responses import KeptResponses, sequence_of, size_of


def frame(sequence: int, mask_bytes: int = 10, logits: int = 0) -> replies.FrameResult:
    mask = EncodedMask(MaskEncoding.COCO_RLE, 4, 4, bytes(mask_bytes))
    values = np.zeros((logits, 1), np.float32) if logits else None
    one = replies.ObjectResult(1, mask, None, 0, 0.5, 1.0, values)
    return replies.FrameResult(sequence, sequence, 0, Fraction(1, 30), 0, (one,))


def test_numbers_count_all_responses_and_sequences_are_acknowledged() -> None:
    kept = KeptResponses()
    assert [kept.add(one) for one in (frame(1), replies.PacketsTaken(3), frame(2), replies.Applied(), frame(3))] == [
        1, 2, 3, 4, 5,
    ]  # fmt: skip
    kept.acknowledge(2, written=5)
    assert (kept.forgotten, kept.acknowledged, len(kept)) == (3, 3, 2)
    kept.acknowledge(1, written=5)
    assert kept.forgotten == 3, "an earlier acknowledgement changes nothing"
    kept.acknowledge(99, written=4)
    assert (kept.forgotten, len(kept)) == (3, 2), "nobody has what was not sent"
    kept.acknowledge(99, written=5)
    assert len(kept) == 0
    assert kept.last == 5
    assert kept.after(5) is None
    assert kept.size == 0


def test_what_comes_after_a_response_is_found_as_long_as_it_is_kept() -> None:
    kept = KeptResponses(last=10)
    kept.add(frame(1))
    kept.add(frame(2))
    assert [getattr(kept.after(number), "number", None) for number in (10, 11, 12)] == [11, 12, None]
    kept.has_up_to(11)
    with pytest.raises(LookupError, match="response 11 is not kept"):
        kept.after(10)
    kept.has_up_to(99)
    assert kept.acknowledged == 12, "nobody has what was not sent"


def test_the_oldest_that_were_written_make_room() -> None:
    kept = KeptResponses()
    for sequence in (1, 2, 3):
        kept.add(frame(sequence, mask_bytes=1000))
    size = kept.size
    kept.shrink(size - 1, written=0)
    assert kept.size == size, "nothing was written"
    kept.shrink(size - 1, written=3)
    assert (kept.forgotten, kept.acknowledged) == (1, 0)
    kept.shrink(0, written=2)
    assert kept.forgotten == 2
    kept.clear()
    assert (kept.size, kept.forgotten) == (0, 3)


def test_a_response_is_as_large_as_its_masks_and_logits() -> None:
    empty = size_of(frame(1, mask_bytes=0))
    assert size_of(frame(1, mask_bytes=5000)) == empty + 5000
    assert size_of(frame(1, mask_bytes=0, logits=100)) == empty + 400
    answer = replies.Answer(7, replies.PromptResult(4, 0, frame(4).objects[0]))
    assert sequence_of(answer) == 4
    assert size_of(answer) > 10
    assert sequence_of(replies.Done(3)) == 0
