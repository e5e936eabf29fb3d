"""All resumable sessions of a server: those that a call has, and those that are parked until a call comes back."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakValueDictionary

from masklet.errors import Aborted, Cancelled, InvalidArgument, MaskletError, NotFound, Unavailable
from masklet_server.session import events, replies
from masklet_server.session.context import SessionResources
from masklet_server.session.events import Delivery, Propagation
from masklet_server.session.limits import ParkingLimits
from masklet_server.session.replies import Resumption
from masklet_server.session.restoring.store import SnapshotStore
from masklet_server.session.resuming import restoration
from masklet_server.session.resuming.attachment import Attachment
from masklet_server.session.resuming.observer import ParkingObserver
from masklet_server.session.resuming.resumable_session import Owner, ResumableSession, Return
from masklet_server.session.resuming.state import Presence
from masklet_server.session.resuming.tokens import ResumeTokens

logger = logging.getLogger(__name__)

# Of so many sessions that are gone the server can say why.
_REMEMBERED = 1000


class ResumableSessions:
    """The resumable sessions of one server.

    It holds every session's task, so that none is lost, and ends each session: when its client cancels it, when it has
    waited too long, when too many wait, or when the server stops.

    Args:
        limits: Bounds.
        observer: Is told what happens.
        conclude: Makes the error that the client gets of what a session raised.
        store: Where snapshots of sessions go; None: sessions end with the server.
    """

    def __init__(
        self,
        limits: ParkingLimits,
        observer: ParkingObserver,
        conclude: Callable[[Exception], MaskletError],
        store: SnapshotStore | None = None,
    ) -> None:
        self.limits = limits
        self._store = store
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._closing: set[asyncio.Task[None]] = set()
        self._observer = observer
        self._conclude = conclude
        self._tokens = ResumeTokens(None if store is None else store.key)
        self._sessions: dict[str, ResumableSession] = {}
        self._attachments: dict[str, Attachment] = {}
        self._parked: OrderedDict[str, asyncio.TimerHandle] = OrderedDict()  # longest parked first
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone: OrderedDict[str, str] = OrderedDict()
        self._is_stopping = False

    @property
    def is_enabled(self) -> bool:
        """Whether sessions can be resumed at all."""
        return self.limits.park_seconds > 0

    @property
    def instance_id(self) -> str:
        """Names this run of the server, in each token of a session: 8 hexadecimal digits."""
        return self._tokens.instance_id

    @property
    def running(self) -> int:
        """How many sessions go on, whether or not a call has them."""
        return len(self._tasks)

    def attached(self, client: str) -> int:
        """How many sessions of the client a call has."""
        return sum(one.session.owner.client == client for one in self._attachments.values())

    @property
    def parked(self) -> int:
        """How many sessions wait for their clients, those that are over included."""
        return len(self._parked)

    @property
    def waiting(self) -> int:
        """How many sessions that are not over wait for their clients."""
        return sum(self._sessions[one].outcome is None for one in self._parked)

    # Beginning and resuming

    def begin(self, config: events.Configure, resources: SessionResources, owner: Owner) -> Attachment:
        """Begin a session, and let the call that asks for it have it.

        Raises:
            NotFound, InvalidArgument: As `Session` does.
        """
        session = ResumableSession(config, resources, owner, self.limits.keep_bytes, self._store)
        return self._begin(session, None)

    async def resume_or_restore(
        self,
        resume: events.Resume,
        owner: Owner,
        resources: Callable[[], SessionResources],
        refusal: MaskletError | None = None,
    ) -> Attachment:
        """As `resume`; where this server does not have the session, it goes on from a snapshot, if there is one.

        Raises:
            Aborted: Another server has taken the session at the same time.
            FailedPrecondition: Going over the video again has ended two servers.
            Unavailable: The snapshots cannot be reached.
            MaskletError: As `resume`.
        """
        session_id = self._tokens.session_id(resume.token, owner.identity)
        if self._store is None or session_id is None or not self.is_enabled:
            return self.resume(resume, owner, resources, refusal)
        # In a task: a session that was taken over is parked, if its call is cancelled meanwhile.
        task = asyncio.create_task(self._find(self._store, session_id, resume, (owner, resources, refusal)))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._closing.add(leaving := asyncio.create_task(self._leave_later(task)))
            leaving.add_done_callback(self._closing.discard)
            raise

    async def _leave_later(self, task: asyncio.Task[Attachment]) -> None:
        with contextlib.suppress(MaskletError):  # nobody is there to be told
            self.leave(await task)

    async def _find(
        self,
        store: SnapshotStore,
        session_id: str,
        resume: events.Resume,
        call: tuple[Owner, Callable[[], SessionResources], MaskletError | None],
    ) -> Attachment:
        owner, resources, refusal = call
        async with self._locks.setdefault(session_id, asyncio.Lock()):
            if await self._has(store, session_id):
                return self.resume(resume, owner, resources, refusal)
            if refusal is not None:
                raise refusal
            given = resources()
            back = await restoration.find(store, session_id, resume, given.engine)
            if back is None or resume.config is None:
                return self.resume(resume, owner, resources, refusal)
            config = replace(resume.config, resumable=True)
            session = ResumableSession(config, given, owner, self.limits.keep_bytes, store, back)
            last = None if back.restored is None else back.restored.state.video.last_index
            attachment = self._begin(session, replies.Resumed(Resumption.RESTORED, back.position, last), back.resume)
        self._observer.resumed("restored")
        return attachment

    async def _has(self, store: SnapshotStore, session_id: str) -> bool:
        """Whether the session goes on at this server, and at no other one."""
        session = self._sessions.get(session_id)
        if session is None or session.presence is Presence.ENDED:
            return False
        writer = session.snapshots
        if writer is None or not writer.life or session.outcome is not None:
            return True
        try:
            newest = await store.shelf.newest_epoch(session_id)
        except MaskletError as error:  # it can still go on here
            logger.warning("the snapshots cannot be reached: %s", error, extra={"session": session_id})
            return True
        if newest > writer.life:
            self._fenced(session_id, Aborted("the session went on at another server"))
        return session_id in self._sessions  # it may have ended meanwhile

    def _fenced(self, session_id: str, error: Aborted) -> None:
        """Another server has the session now."""
        if (session := self._sessions.get(session_id)) is not None:
            logger.warning("the session goes on at another server", extra={"session": session_id})
            self._finish(session, error, "it went on at another server", drop=False)

    def _note_kept(self, session_id: str, position: replies.InputPosition, frame: int) -> None:
        if (attachment := self._attachments.get(session_id)) is not None:
            attachment.note(replies.InputKept(position, frame))

    def resume(
        self,
        resume: events.Resume,
        owner: Owner,
        resources: Callable[[], SessionResources],
        refusal: MaskletError | None = None,
    ) -> Attachment:
        """Let the call have a session that goes on, or that begins anew.

        Args:
            resume: What the client says.
            owner: Who it is.
            resources: Makes what a session needs that begins anew.
            refusal: Why there is no room for one more call; it may only take the place of another one.

        Raises:
            NotFound: The session cannot be resumed.
            MaskletError: The refusal.
            InvalidArgument: A field of the request is wrong.
        """
        try:
            return self._attach_again(resume, owner, refusal)
        except NotFound as gone:
            if not resume.can_rewind:
                self._observer.resumed("refused")
                raise
            if refusal is not None:
                raise refusal from None
            attachment = self._rewind(resume, owner, resources, gone)
        self._observer.resumed("rewound")
        return attachment

    def _attach_again(self, resume: events.Resume, owner: Owner, refusal: MaskletError | None) -> Attachment:
        session_id = self._tokens.session_id(resume.token, owner.identity)
        session = self._sessions.get(session_id or "")
        if session is None or session.presence is Presence.ENDED:
            raise NotFound(self._why_gone(session_id))
        try:
            session.check(resume.last_response)
        except NotFound:
            if not resume.can_rewind:  # it can never go on
                self._finish(session, Cancelled("the session can't be resumed"), "its responses were not kept")
            raise
        if refusal is not None and session.presence is not Presence.ATTACHED:
            raise refusal
        self._unpark(session)
        attached = self._attachment(session, replies.Resumed(Resumption.ATTACHED, session.inbox.position), resume)
        self._observer.resumed("attached")
        return attached

    def _rewind(
        self, resume: events.Resume, owner: Owner, resources: Callable[[], SessionResources], gone: NotFound
    ) -> Attachment:
        if not self.is_enabled:
            raise gone
        config = resume.config
        if config is None:
            raise InvalidArgument.of("resume.config", "is missing; with can_rewind, send the session's configuration")
        if config.propagation is not Propagation.AUTOMATIC or config.delivery is not Delivery.LOSSLESS:
            raise InvalidArgument.of(
                "resume.can_rewind",
                "is only possible with PROPAGATION_AUTOMATIC and DELIVERY_LOSSLESS; leave it out",
            )
        session_id = self._tokens.session_id(resume.token, owner.identity)
        if session_id in self._sessions:  # it can't go on: too few of its responses are kept
            self._finish(self._sessions[session_id], Cancelled("the session began anew"), "began anew")
        config = replace(config, resumable=True)
        session = ResumableSession(config, resources(), owner, self.limits.keep_bytes, self._store, Return(resume))
        resumed = replies.Resumed(Resumption.REWOUND, session.inbox.position, resume.last_frame)
        return self._begin(session, resumed)

    def _begin(
        self, session: ResumableSession, resumed: replies.Resumed | None, resume: events.Resume | None = None
    ) -> Attachment:
        self._sessions[session.id] = session
        if session.snapshots is not None:
            session.snapshots.on_stored = functools.partial(self._note_kept, session.id)
            session.snapshots.on_fenced = functools.partial(self._fenced, session.id)
        task = session.start(self._conclude)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return self._attachment(session, resumed, resume)

    def _attachment(
        self, session: ResumableSession, resumed: replies.Resumed | None, resume: events.Resume | None
    ) -> Attachment:
        limits = self.limits
        epoch = session.attach(None if resume is None else resume.last_response, limits.park_seconds)
        token = self._tokens.token(session.id, session.owner.identity)
        grant = replies.ResumeGrant(token, epoch, limits.park_seconds, limits.keep_bytes)
        attachment = self._attachments[session.id] = Attachment(session, grant, resumed)
        return attachment

    def _why_gone(self, session_id: str | None) -> str:
        why = self._gone.get(session_id or "", "it has ended, it is of another server, or the server was started again")
        return f"the session can't be resumed: {why}; begin a new one with config"

    # Parking

    def leave(self, attachment: Attachment, *, ran_out: bool = False) -> bool:
        """A call has ended, whatever the reason. The caller must always call it.

        Args:
            attachment: The call's.
            ran_out: The client's own deadline has ended it. If nothing was answered yet, the client does not know the
                session, as far as anybody can tell, and nobody comes back to it.

        Returns:
            Whether the session is parked, and is not over.
        """
        session = attachment.session
        if self._attachments.get(session.id) is attachment:
            del self._attachments[session.id]
        if session.presence is Presence.ENDED:
            self._forget(session)  # its client has asked for it
        elif session.detach(attachment.epoch):
            if self._is_stopping:
                self._finish(session, _stopped(), "the server was stopped", drop=False)
            elif not attachment.is_told or (ran_out and not attachment.has_answered):
                self._finish(session, Cancelled("the client left before it knew the session"), "its client left")
            else:
                self._park(session)
        return session.id in self._parked and session.outcome is None

    def _park(self, session: ResumableSession) -> None:
        loop = asyncio.get_running_loop()
        self._parked[session.id] = loop.call_later(self.limits.park_seconds, self._expire, session)
        if session.outcome is None:
            logger.info("session parked", extra={"session": session.id, "client": session.owner.client})
        limits, client = self.limits, session.owner.client
        mine = [one for one in self._parked if self._sessions[one].owner.client == client]
        if len(mine) > limits.max_sessions_per_client:
            self._evict(mine)
        elif len(self._parked) > limits.max_sessions:
            self._evict(list(self._parked))
        self._observer.parked(len(self._parked))

    def _evict(self, session_ids: list[str]) -> None:
        """End the session that has waited longest; first one that is over, whose client may have everything."""
        over = [one for one in session_ids if self._sessions[one].outcome is not None]
        session = self._sessions[(over or session_ids)[0]]
        self._count_end(session, "evicted")
        why = "too many sessions waited for their clients"
        self._finish(session, NotFound("the session was evicted"), why, drop=session.is_delivered)

    def _expire(self, session: ResumableSession) -> None:
        self._count_end(session, "expired")
        seconds = self.limits.park_seconds
        why = f"its client was away for more than {seconds:g} s"
        self._finish(session, NotFound("the session has expired"), why, drop=session.is_delivered)

    def _count_end(self, session: ResumableSession, why: str) -> None:
        """Tell why a parked session ends. One that was over has lost nothing: each stream waits at its end."""
        if session.outcome is None:
            self._observer.parked_ended(why)

    def _unpark(self, session: ResumableSession) -> None:
        timer = self._parked.pop(session.id, None)
        if timer is not None:
            timer.cancel()
            self._observer.parked(len(self._parked))

    def _finish(self, session: ResumableSession, error: MaskletError, why: str, *, drop: bool = True) -> None:
        """End a session here. Its task frees everything that it has.

        Args:
            session: The session.
            error: With what its call ends.
            why: What a client is told that asks for it later.
            drop: Nobody goes on with it, so its snapshots are deleted.
        """
        session.end(error)
        self._forget(session, drop=drop)
        self._gone[session.id] = why
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    def _forget(self, session: ResumableSession, *, drop: bool = True) -> None:
        self._unpark(session)
        if self._sessions.pop(session.id, None) is not None and session.snapshots is not None:
            self._closing.add(task := asyncio.create_task(session.snapshots.close(drop=drop)))
            task.add_done_callback(self._closing.discard)

    # Stopping

    def announce_stop(self, seconds: float) -> None:
        """The server stops in so many seconds: tell the clients, and end the sessions that wait for theirs.

        No call comes back from now on, because the server admits none.
        """
        self._is_stopping = True
        for session_id in list(self._parked):
            self._count_end(self._sessions[session_id], "stopped")
            self._finish(self._sessions[session_id], _stopped(), "the server was stopped", drop=False)
        for attachment in self._attachments.values():
            if attachment.session.snapshots is not None:
                attachment.session.snapshots.operation_taken()  # one more, as late as possible
            attachment.note(replies.Moving(attachment.token, seconds))

    async def close(self) -> None:
        """End all sessions, and wait until everything that they had is freed."""
        self._is_stopping = True
        for session in list(self._sessions.values()):
            self._finish(session, _stopped(), "the server was stopped", drop=False)
        while self._tasks or self._closing:
            await asyncio.wait({*self._tasks, *self._closing})


def _stopped() -> Unavailable:
    return Unavailable("the server was stopped; resume the session, or send the video again", retry_after_seconds=1.0)
