"""A session that outlives its calls.

The session runs in a task of its own. What it sends goes to the kept responses, and from there to the call that has it
(its *attachment*), if there is one. A response counts as sent when the call has written it; while the session is
parked, when it is kept. So a parked session goes on until its window, or the room for responses, is full.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from masklet.errors import Cancelled, InvalidArgument, MaskletError, NotFound, Unavailable
from masklet_server.session import events, replies
from masklet_server.session.context import SessionResources, Survival
from masklet_server.session.replies import Response
from masklet_server.session.restoring.schedule import Schedule
from masklet_server.session.restoring.state import Restored
from masklet_server.session.restoring.store import SnapshotStore
from masklet_server.session.restoring.writer import KeptState, SnapshotWriter
from masklet_server.session.resuming.inbox import Inbox
from masklet_server.session.resuming.kept_responses import KeptResponse, KeptResponses, sequence_of
from masklet_server.session.resuming.signals import Signal
from masklet_server.session.resuming.state import TRANSITIONS, Change, Presence
from masklet_server.session.session import Session
from masklet_server.snapshots.snapshot import Snapshot


@dataclass(frozen=True)
class Owner:
    """Whose session it is.

    Attributes:
        client: The client's name, by which it is limited.
        identity: Who may resume the session; empty: anybody who has its token.
    """

    client: str
    identity: str = ""


@dataclass(frozen=True, eq=False)
class Outcome:
    """How the session inside has ended.

    Attributes:
        error: Why it could not go on; None if everything was sent.
    """

    error: MaskletError | None


@dataclass(frozen=True, eq=False)
class Return:
    """What a session begins with that a client comes back to, and that this server does not have.

    Attributes:
        resume: The client's.
        restored: What the session goes on from; None: it begins anew.
        life: The epoch of the snapshots that this server has claimed; 0: none.
        kept: The responses in the snapshot that the client may not have.
        last: The number of the last response before the snapshot.
        calls: The number of the last call before it.
        snapshot: The snapshot; None: the session begins anew.
    """

    resume: events.Resume
    restored: Restored | None = None
    life: int = 0
    kept: Sequence[KeptResponse] = ()
    last: int = 0
    calls: int = 0
    snapshot: Snapshot | None = None

    @property
    def position(self) -> replies.InputPosition:
        """From where the client sends its messages again."""
        if self.restored is None:
            return replies.InputPosition()
        state, config = self.restored.state, self.resume.config
        count = state.video.count
        if state.video.unit == "frame_count" and config is not None and config.delivery is events.Delivery.LATEST:
            count = self.restored.first_index  # earlier ones are known, or too late
        return replies.InputPosition(state.video.unit, count, request_id=state.request_id)

    def responses(self) -> KeptResponses:
        """Numbers and keeps the session's responses from now on."""
        if self.restored is None or self.resume.last_response >= self.last:
            return KeptResponses(self.resume.last_response)
        return KeptResponses(self.last, self.kept)


class ResumableSession:
    """One session, its client's messages, and its responses. `start` must be called once.

    Attributes:
        id: The session's id.
        owner: Whose session it is.
        inbox: What the client says.
        kept: The responses that the client may not have.
        presence: Whether a call has it.
        epoch: The number of the call that has it, or had it last.
        outcome: How the session inside has ended; None while it goes on.
        snapshots: Stores snapshots of it; None: nobody does.
        changed: Given when there is a further response, and when the session ends.

    Args:
        config: The session's configuration.
        resources: What the server gives to the session.
        owner: Whose session it is.
        keep_bytes: What responses may take that the client does not have.
        store: Where its snapshots go; None: it has none.
        back: What it begins with, for a client that comes back; None: it is new.

    Raises:
        NotFound, InvalidArgument: As `Session` does.
    """

    def __init__(
        self,
        config: events.Configure,
        resources: SessionResources,
        owner: Owner,
        keep_bytes: int,
        store: SnapshotStore | None = None,
        back: Return | None = None,
    ) -> None:
        replay = events.NO_REPLAY if back is None else back.resume.replay
        restored = None if back is None else back.restored
        self.owner = owner
        position = replies.InputPosition() if back is None else back.position
        self.inbox = Inbox([one.operation.request_id for one in replay.operations], position)
        self.kept = KeptResponses() if back is None else back.responses()
        self.presence = Presence.ATTACHED
        self.epoch = 0 if back is None else back.calls
        self.outcome: Outcome | None = None
        self.changed = Signal()
        self.id = uuid.uuid4().hex if restored is None else restored.session_id
        self.snapshots: SnapshotWriter | None = None
        if store is not None and config.propagation is events.Propagation.AUTOMATIC:
            self.snapshots = _writer(store, self.id, self.kept, self.inbox, back)
        session = Session(config, resources, self._send, replay, Survival(self.id, self.snapshots, restored))
        self._session: Session | None = session
        self._known_sequence = replay.last_sequence
        self._knows_video = restored is not None or replay.last_sequence > 0
        self._keep_bytes = keep_bytes
        self._opened: replies.Opened | None = None
        self._written = self.kept.last  # the last response that the call which has the session has written
        self._ending: MaskletError | None = None
        self._task: asyncio.Task[None] | None = None

    # Its life

    def start(self, conclude: Callable[[Exception], MaskletError]) -> asyncio.Task[None]:
        """Begin to run. The caller keeps the task, and calls `end` if it should end early.

        Args:
            conclude: Makes the error that the client gets of what the session raised.
        """
        session = self._session
        assert session is not None
        self._task = asyncio.create_task(self._run(session, conclude), name=f"resumable {self.id}")
        self._task.add_done_callback(lambda _: self._is_over(self._ending))
        return self._task

    async def _run(self, session: Session, conclude: Callable[[Exception], MaskletError]) -> None:
        error: MaskletError | None = None
        try:
            await session.run(self.inbox)
        except asyncio.CancelledError:
            error = self._ending or Cancelled("the session was cancelled")
        except Exception as failure:  # noqa: BLE001 - the client gets it, whichever call it comes with
            error = conclude(failure)
        finally:
            self._is_over(error)

    def _is_over(self, error: MaskletError | None) -> None:
        """The session inside has ended, or was cancelled before it began."""
        if self.outcome is None:
            self._session = None
            self.outcome = Outcome(None if error is None else copied(error))
            self.changed.give()

    def end(self, error: MaskletError) -> None:
        """End the session, if it goes on, with this error; nobody can resume it any more."""
        self.change(Change.END)
        self._ending = self._ending or error
        self.kept.clear()
        if self._task is not None:
            self._task.cancel()

    def change(self, change: Change) -> None:
        """Go to the next presence; see `masklet_server.session.resuming.state`."""
        self.presence = TRANSITIONS[self.presence, change]
        self.changed.give()

    # Its calls

    def check(self, last_response: int) -> None:
        """Whether a client that has all responses up to this number can go on.

        Raises:
            InvalidArgument: There is no such response, or the client has acknowledged a later one.
            NotFound: Responses that the client needs are not kept any more; or a fault of the server has ended the
                session, and the client has everything that came before: only a new session may have more luck.
        """
        if last_response > self.kept.last:
            raise InvalidArgument.of(
                "resume.last_response", f"is {last_response}, but the last response has the number {self.kept.last}"
            )
        if last_response < self.kept.acknowledged:
            raise InvalidArgument.of(
                "resume.last_response",
                f"is {last_response}, but the client has acknowledged responses up to {self.kept.acknowledged}",
            )
        if last_response < self.kept.forgotten:
            raise NotFound(
                f"the session can't be resumed after response {last_response}: only {self._keep_bytes} bytes of "
                f"responses are kept (max_kept_response_bytes), from {self.kept.forgotten + 1} on; acknowledge "
                "results, or begin a new session"
            )
        error = self.outcome.error if self.outcome is not None else None
        if isinstance(error, Unavailable) and last_response == self.kept.last:
            raise NotFound(f"the session can't be resumed, because it has ended: {error.message}; begin a new one")

    def attach(self, last_response: int | None, park_seconds: float) -> int:
        """A call has the session from now on, and no other call. `check` must allow it.

        Args:
            last_response: The number of the last response that the client has; None in the session's first call.
            park_seconds: As long as the session waits for a client.

        Returns:
            The call's epoch.
        """
        self.change(Change.ATTACH)
        self.epoch += 1
        if last_response is not None:
            self.kept.has_up_to(last_response)
            self._written = last_response
        self.inbox.begin(self.epoch)
        if self._session is not None:
            self._session.client_came(park_seconds)
        self.changed.give()
        return self.epoch

    def detach(self, epoch: int) -> bool:
        """A call has ended. Returns whether it had the session, which is parked now."""
        if epoch != self.epoch or self.presence is not Presence.ATTACHED:
            return False
        self.change(Change.DETACH)
        if self._session is not None:
            self._session.client_left()
        return True

    async def opened(self) -> replies.Opened | None:
        """What the session said first; None if it has ended before."""
        await self.changed.until(lambda: self._opened is not None or self.outcome is not None)
        return self._opened

    def next_response(self) -> KeptResponse | None:
        """The next response that the call which has the session writes; None if there is none yet."""
        return self.kept.after(max(self._written, self.kept.forgotten))

    def wrote(self, number: int, epoch: int) -> None:
        """The call has written a response."""
        if epoch == self.epoch:
            self._written = number
            self.kept.shrink(self._keep_bytes, number)
            self.changed.give()

    @property
    def is_delivered(self) -> bool:
        """Whether the session is over, and the call which has it has written all of its responses."""
        return self.outcome is not None and self.next_response() is None

    def acknowledge(self, sequence: int) -> None:
        """The client has all results up to that sequence, which the session is told by a message of its own."""
        self.kept.acknowledge(sequence, self._written)
        self.changed.give()

    # What the session says

    async def _send(self, response: Response) -> None:
        if isinstance(response, replies.Opened):
            self._opened = response
            self.changed.give()
            return
        if self._is_known(response):
            return
        number = self.kept.add(response)
        self.changed.give()
        await self.changed.until(lambda: self._is_sent(number))

    def _is_sent(self, number: int) -> bool:
        if self.presence is Presence.ATTACHED:
            return self._written >= number
        return self.kept.size <= self._keep_bytes

    def _is_known(self, response: Response) -> bool:
        """Whether the client has the response from before the session began anew."""
        if isinstance(response, replies.Described):
            return self._knows_video
        return 0 < sequence_of(response) <= self._known_sequence


def _writer(
    store: SnapshotStore, session_id: str, kept: KeptResponses, inbox: Inbox, back: Return | None
) -> SnapshotWriter:
    """Refers to no session, so that a session is freed with the last reference to it."""

    def state() -> KeptState:
        return KeptState([(one.number, one.sequence, one.response) for one in kept], kept.last, inbox.epoch)

    life = 0 if back is None else back.life
    schedule = Schedule(store.limits.frames, lambda: inbox.position.size)
    writer = SnapshotWriter(store, session_id, life, state, schedule)
    writer.began_with = None if back is None else back.snapshot
    return writer


def copied(error: MaskletError) -> MaskletError:
    """The error without what it refers to: frames, and by them memory banks and temporary files."""
    return type(error)(error.message, violations=error.violations, retry_after_seconds=error.retry_after_seconds)


def granted(opened: replies.Opened, grant: replies.ResumeGrant) -> replies.Opened:
    """What a session said first, with how it can be resumed."""
    return replace(opened, resume=grant)
