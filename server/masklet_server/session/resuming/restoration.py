"""Finds what a session goes on from that this server does not have: a snapshot, its responses, and what is repeated."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace

from masklet.errors import DataLoss, FailedPrecondition, InvalidArgument, MaskletError
from masklet_server.engine.memory.bank import MemoryBank
from masklet_server.engine.serving.loaded_model import find_loaded
from masklet_server.session import events, replies
from masklet_server.session.events import Delivery
from masklet_server.session.ports import TrackingEngine
from masklet_server.session.restoring.state import AutomaticState, Restored, check_config, check_weights
from masklet_server.session.restoring.store import SnapshotStore
from masklet_server.session.resuming.kept_responses import KeptResponse, size_of
from masklet_server.session.resuming.resumable_session import Return
from masklet_server.snapshots.snapshot import Snapshot

logger = logging.getLogger(__name__)

# So many servers may end while they go over the same part of a video again. More of them must not.
MAX_DEAD_LIVES = 2


@dataclass(frozen=True, eq=False)
class _Found:
    """A snapshot that suits the client."""

    epoch: int
    snapshot: Snapshot
    state: AutomaticState
    kept: tuple[KeptResponse, ...]
    last: int
    calls: int


async def find(store: SnapshotStore, session: str, resume: events.Resume, engine: TrackingEngine) -> Return | None:
    """What the session goes on from; None: there is no snapshot from which this client can go on.

    From then on no other server can go on with the session.

    Args:
        store: Where the snapshots are.
        session: The session's id.
        resume: What the client says.
        engine: Tracks the session from now on.

    Raises:
        InvalidArgument: The configuration is missing, or is not the session's.
        Aborted: Another server has taken the session at the same time.
        FailedPrecondition: Going over the video again has ended two servers.
        NotFound: The model is not loaded.
        Unavailable: The store cannot be used.
    """
    if (found := await _newest(store, session, resume, engine)) is None:
        return None
    config = resume.config
    assert config is not None, "`_newest` needs it"
    model = find_loaded(engine.models, config.model).name
    shelf = store.shelf
    claimed = await shelf.newest_epoch(session)
    if claimed - found.epoch >= MAX_DEAD_LIVES:
        raise FailedPrecondition(
            f"the session can't be resumed: {claimed - found.epoch} servers ended while they went over its video again "
            f"after frame {found.state.video.last_index}; the video itself may be the cause"
        )
    life = claimed + 1
    await shelf.claim(session, life)
    # The server that had the session before may have stored one more.
    if (found := await _newest(store, session, resume, engine)) is None:
        return None
    try:
        banks = await asyncio.to_thread(_load, engine, model, found.snapshot)
    except MaskletError:
        await shelf.put(session, life, 0, found.snapshot)  # so that this life does not count as one that died
        raise
    state, replay = found.state, _rest_of(resume, found.state)
    if config.delivery is Delivery.LATEST:
        last_sent = max(state.credits.last_sent, replay.last_sequence)
        state = replace(state, credits=replace(state.credits, last_sent=last_sent))
    restored = Restored(session, state, banks, resume.last_frame)
    return Return(replace(resume, replay=replay), restored, life, found.kept, found.last, found.calls, found.snapshot)


async def _newest(store: SnapshotStore, session: str, resume: events.Resume, engine: TrackingEngine) -> _Found | None:
    """The newest snapshot from which the client can go on. Others are passed over, with a line in the log."""
    async for epoch, snapshot in store.shelf.snapshots(session):
        if resume.config is None:
            raise InvalidArgument.of(
                "resume.config", "is missing; this server goes on from a snapshot: send the session's configuration"
            )
        try:
            found = _read(epoch, snapshot)
            check_config(found.state, resume.config)
            check_weights(found.state, find_loaded(engine.models, resume.config.model))
            _check(found, resume)
        except DataLoss as error:
            logger.warning(
                "a snapshot of frame %d is passed over: %s", snapshot.last_frame, error, extra={"session": session}
            )
            continue
        return found
    return None


def _read(epoch: int, snapshot: Snapshot) -> _Found:
    """Raises DataLoss where another version has written the snapshot."""
    told = snapshot.state
    try:
        state = AutomaticState.from_json(told["session"])
        pairs = zip(told["responses"], snapshot.responses, strict=True)
        kept = tuple(_kept(int(number), int(sequence), data) for (number, sequence), data in pairs)
        return _Found(epoch, snapshot, state, kept, int(told["last_number"]), int(told["epoch"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataLoss(f"the snapshot is of another version: {error!r}") from None


def _kept(number: int, sequence: int, data: bytes) -> KeptResponse:
    stored = replies.Stored(data, sequence)
    return KeptResponse(number, stored, size_of(stored))


def _check(found: _Found, resume: events.Resume) -> None:
    """Raises DataLoss where the client can't go on from there."""
    forgotten = found.last - len(found.kept)
    if resume.last_response < forgotten:
        raise DataLoss(f"the client has responses up to {resume.last_response}; those up to {forgotten} are not kept")
    if resume.config is not None and resume.config.delivery is Delivery.LATEST:
        return
    state = found.state
    for taken in _rest_of(resume, state).operations:
        operation = taken.operation
        if isinstance(operation, events.PromptObject) and _is_too_early(operation, state):
            raise DataLoss(
                f"request {operation.request_id} corrects a frame that was tracked before the snapshot, and that can't "
                "be corrected from it"
            )


def _is_too_early(operation: events.PromptObject, state: AutomaticState) -> bool:
    given = operation.prompt
    if operation.on_next_frame:
        return False
    if (time := given.pts_nanoseconds) is not None:
        times = [one for index, one in state.prompts.times if not state.window or index >= state.window[0].index]
        return time <= (times[0] if state.window else max(times, default=-1))
    first = min([*state.window[0].skipped, state.window[0].index]) if state.window else state.video.last_index + 1
    return given.frame_index < first


def _rest_of(resume: events.Resume, state: AutomaticState) -> events.Replay:
    """What is repeated: only operations that are not in the snapshot."""
    rest = tuple(one for one in resume.replay.operations if one.operation.request_id > state.request_id)
    return replace(resume.replay, operations=rest)


def _load(engine: TrackingEngine, model: str, snapshot: Snapshot) -> dict[int, MemoryBank]:
    """Takes milliseconds: not for the event loop."""
    return {object_id: engine.load_bank(model, data) for object_id, data in snapshot.banks.items()}
