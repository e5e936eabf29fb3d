"""A client that watches a scripted session over several calls, on servers that have the session or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from masklet_server.session import events, replies
from masklet_server.video.packet import Packet
from masklet_server.video.picture import Picture
from tests.support.resuming import CONFIG, STORED, Call, Lot
from tests.support.session import click

# By number of frame results that the client has, what it then says before it acknowledges the last one.
Plan = Mapping[int, Sequence[events.Operation]]
PICTURES: list[events.Event] = [events.NextPicture(Picture("encoded", bytes([i]))) for i in range(24)]
PACKETS: list[events.Event] = [
    events.NextPacket(Packet(bytes([i]), "h264" if i == 0 else "", b"extra" if i == 0 else b"")) for i in range(24)
]
FRAMES = 24
# New objects, corrections of tracked frames one after the other and together, prompts ahead, removals, prompts taken
# back; and prompts that are wrong.
PLAN: Plan = {
    0: [click(1), click(2, 6)],
    3: [click(1, 1)],
    8: [click(2, 6), click(1, 4)],
    12: [events.RemoveObject(2)],
    14: [click(2, 12), click(3, 20), click(3, 21)],
    16: [events.ClearPrompts(3, 21), events.RemoveObject(77), click(9, 3)],
    20: [events.RemoveObject(9), click(1, 0)],
    33: [click(1, 10), click(2, 9)],
}


class Viewer:
    """A client with a window of 1, which says when it has how many results, over several calls.

    Attributes:
        seen: Every frame result and prompt result: sequence, frame, revision (None for a prompt) and masks by object.
        problems: Errors by the number of their request.
        token: Of the session.
        kept: What the server has said last of what it does not need again.
        video: The video's messages, one a frame.
    """

    def __init__(self, plan: Plan, config: events.Configure = CONFIG) -> None:
        self.config = replace(config, window=1, deterministic=True)
        self.seen: list[tuple[int, int, int | None, dict[int, bytes]]] = []
        self.problems: dict[int, str] = {}
        self.said: dict[int, events.Operation] = {}
        self.taken: dict[int, replies.Taken] = {}
        self.numbers: list[int] = []
        self.done: replies.Done | None = None
        self.token = ""
        self.kept: replies.InputKept | None = None
        self.video: list[events.Event] = [events.VideoChunk(bytes([i])) for i in range(FRAMES)]
        self._plan = plan
        self._frames = 0
        self._last_frame: int | None = None
        self._last_ack = 0

    async def watch(self, held: Lot, *, breaks_after: int | None = None) -> Call:
        """Begin a session and watch until the end, or until so many responses have come and the call breaks."""
        call = held.begin(self.config)
        self._say(call)
        self._video(call)
        await self._read(call, breaks_after)
        return call

    async def watch_on(self, held: Lot, token: str = "lost", *, breaks_after: int | None = None) -> Call:
        """Go on, on a server that does not have the session."""
        answered = [events.TakenOperation(self.said[i], taken.after_sequence) for i, taken in self.taken.items()]
        answered.sort(key=lambda one: one.operation.request_id)
        call = held.resume(
            events.Resume(
                token,
                last_response=max(self.numbers, default=0),
                can_rewind=True,
                config=self.config,
                replay=events.Replay(tuple(answered), self.seen[-1][0] if self.seen else 0, self._last_ack),
                last_frame=self._last_frame,
            )
        )
        await call.until(lambda: call.all(replies.Resumed))
        assert call.resumed.how is replies.Resumption.REWOUND
        assert call.resumed.position.unit == ""
        assert call.resumed.rewound_to_frame == self._last_frame
        await self._go_on(call, breaks_after)
        return call

    async def come_back(self, held: Lot, *, breaks_after: int | None = None) -> Call:
        """Go on where the session's snapshots are; the client holds its input only as far as it was told to."""
        call = await held.come_back(self.resume())
        await call.until(lambda: call.all(replies.Resumed))
        position = call.resumed.position
        if self.kept is not None:
            assert position.count >= self.kept.position.count, "the client does not have it any more"
            assert position.request_id >= self.kept.position.request_id
        await self._go_on(call, breaks_after)
        return call

    def resume(self, *, can_rewind: bool = False) -> events.Resume:
        """What the client says to go on; it has let go of the operations that are in a snapshot."""
        known = 0 if self.kept is None else self.kept.position.request_id
        answered = [
            events.TakenOperation(self.said[i], one.after_sequence) for i, one in self.taken.items() if i > known
        ]
        answered.sort(key=lambda one: one.operation.request_id)
        return events.Resume(
            self.token,
            last_response=max(self.numbers, default=0),
            can_rewind=can_rewind,
            config=self.config,
            replay=events.Replay(tuple(answered), self.seen[-1][0] if self.seen else 0, self._last_ack),
            last_frame=self._last_frame,
        )

    async def _go_on(self, call: Call, breaks_after: int | None) -> None:
        position = call.resumed.position
        for number, operation in self.said.items():
            if number not in self.taken and number not in self.problems and number > position.request_id:
                call.say(operation)
        self._video(call, position.count)
        await self._read(call, breaks_after)

    def _video(self, call: Call, start: int = 0) -> None:
        call.say(*self.video[start:], events.EndOfVideo())

    def _say(self, call: Call) -> None:
        for operation in self._plan.get(self._frames, ()):
            number = len(self.said) + 1
            self.said[number] = replace(operation, request_id=number)
            call.say(self.said[number])

    async def _read(self, call: Call, breaks_after: int | None) -> None:
        read = 0
        while self.done is None:
            await call.until(lambda: len(call.responses) > read)  # noqa: B023 - it is called at once
            response = call.responses[read]
            read += 1
            if isinstance(response, replies.InputKept):
                self.kept = response
            if isinstance(response, replies.Opened) and response.resume is not None:
                self.token = response.resume.token
            if isinstance(response, replies.Numbered):
                self.numbers.append(response.number)
                self._take(call, response.response)
            if len(self.numbers) == breaks_after:
                await call.breaks()
                return
        call.half_close()
        await call.end()

    def _take(self, call: Call, response: replies.Response) -> None:
        number = 0
        if isinstance(response, replies.Answer):
            number, response = response.request_id, response.response
        if isinstance(response, replies.Stored):
            number, response = STORED[response.message]
        match response:
            case replies.FrameResult():
                masks = {one.object_id: one.mask.data for one in response.objects}
                self.seen.append((response.sequence, response.frame_index, response.revision, masks))
                self._frames += 1
                self._last_frame = response.frame_index
                self._say(call)
                self._last_ack = response.sequence
                call.say(events.Ack(response.sequence))
            case replies.PromptResult():
                found = {response.object.object_id: response.object.mask.data}
                self.seen.append((response.sequence, response.frame_index, None, found))
                assert response.taken == self.taken[number], "it was answered when it was taken"
            case replies.Applied():
                assert response.taken is not None
                self.taken[number] = response.taken
            case replies.Problem():
                self.problems[number] = response.error.message
            case replies.Done():
                self.done = response
