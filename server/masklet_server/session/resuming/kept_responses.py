"""The responses of a resumable session: numbered, and kept until the client has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from masklet_server.session import replies
from masklet_server.session.replies import Response

# What a response takes besides its masks and logits, roughly.
_RESPONSE_BYTES = 400
_OBJECT_BYTES = 400


@dataclass(frozen=True, eq=False)
class KeptResponse:
    """A response that the client may not have.

    Attributes:
        number: Counts the session's responses from 1.
        response: The response itself.
        size: What it takes, in bytes.
    """

    number: int
    response: Response
    size: int

    @property
    def sequence(self) -> int:
        """The sequence of a frame result or prompt result; 0 for other responses."""
        return sequence_of(self.response)


class KeptResponses:
    """Numbers a session's responses, and keeps those that the client has not acknowledged.

    Attributes:
        last: The number of the last response.
        forgotten: Responses up to this number are not kept any more.
        acknowledged: Responses up to this number are known to the client.
        size: What the kept responses take, in bytes.

    Args:
        last: The number of the last response before, of a session that begins anew.
        stored: Responses before that one, without a gap, of a session that was restored.
    """

    def __init__(self, last: int = 0, stored: Sequence[KeptResponse] = ()) -> None:
        self.last = last
        self.forgotten = self.acknowledged = last - len(stored)
        self.size = sum(one.size for one in stored)
        self._kept: deque[KeptResponse] = deque(stored)

    def __iter__(self) -> Iterator[KeptResponse]:
        """Those that are kept, in order."""
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, response: Response) -> int:
        """Keep a response. Returns its number."""
        self.last += 1
        kept = KeptResponse(self.last, response, size_of(response))
        self._kept.append(kept)
        self.size += kept.size
        return self.last

    def after(self, number: int) -> KeptResponse | None:
        """The first response behind the one of that number; None if there is none yet.

        Raises:
            LookupError: It is not kept any more.
        """
        if number < self.forgotten:
            raise LookupError(f"response {number + 1} is not kept any more")
        index = number - self.forgotten
        return self._kept[index] if index < len(self._kept) else None

    def acknowledge(self, sequence: int, written: int) -> None:
        """The client has all responses up to the result of that sequence. Of an unknown sequence nothing is known.

        Args:
            sequence: What the client has acknowledged, rightly or wrongly.
            written: Responses up to this number were given to the network; the client cannot have later ones.
        """
        found = 0
        for kept in self._kept:  # in the order of numbers, and of sequences
            if kept.number > written or kept.sequence > sequence:
                break
            if kept.sequence:
                found = kept.number
        self.has_up_to(found)

    def has_up_to(self, number: int) -> None:
        """The client has all responses up to that number."""
        self.acknowledged = max(self.acknowledged, min(number, self.last))
        while self._kept and self._kept[0].number <= self.acknowledged:
            self._forget_first()

    def shrink(self, max_bytes: int, written: int) -> None:
        """Forget the oldest responses, as long as all together are too large, and the oldest was written to the client.

        Args:
            max_bytes: What all of them may take.
            written: Responses up to this number were given to the network.
        """
        while self.size > max_bytes and self._kept and self._kept[0].number <= written:
            self._forget_first()

    def clear(self) -> None:
        """Forget all responses that are kept."""
        while self._kept:
            self._forget_first()

    def _forget_first(self) -> None:
        first = self._kept.popleft()
        self.size -= first.size
        self.forgotten = first.number


def sequence_of(response: Response) -> int:
    """The sequence of a frame result or prompt result; 0 for other responses."""
    if isinstance(response, replies.Answer):
        response = response.response
    if isinstance(response, replies.FrameResult | replies.PromptResult | replies.Stored):
        return response.sequence
    return 0


def size_of(response: Response) -> int:
    """What a response takes in memory, in bytes, roughly: its masks and logits, and something for all else."""
    match response:
        case replies.Answer():
            return size_of(response.response)
        case replies.FrameResult():
            return _RESPONSE_BYTES + sum(map(_object_bytes, response.objects))
        case replies.PromptResult():
            return _RESPONSE_BYTES + _object_bytes(response.object)
        case replies.Stored():
            return _RESPONSE_BYTES + len(response.message)
    return _RESPONSE_BYTES


def _object_bytes(result: replies.ObjectResult) -> int:
    return _OBJECT_BYTES + len(result.mask.data) + (0 if result.logits is None else result.logits.nbytes)
