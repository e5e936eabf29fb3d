"""Lets the client's operations in between two steps of tracking, and says between which.

A resumable session may have to begin anew, with the video from its start, and must then find the same masks and number
its results in the same way. For this each operation has to take effect where it did the first time. So while a step is
under way (a frame that is tracked, or corrected), operations wait for its end. Each is answered when it is taken,
before any result that it changes, and the answer names the last result that was made before. A session that begins anew
takes the operations of its `Replay` after the same results, and what the client says meanwhile after those that it has.

Where a session is not resumable, the gate is always open, and nothing is said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from masklet.errors import MaskletError, ResourceExhausted
from masklet_server.session import events, replies
from masklet_server.session.context import SessionContext
from masklet_server.session.prompts import check_waiting_masks
from masklet_server.session.replies import Taken
from masklet_server.session.sending import FrameOutcome

# Operations that wait for the end of a step. Their masks are bounded by size.
MOST_WAITING = 1000


class OperationGate:
    """Hands operations to a session's automatic mode, at once or at the end of the step that is under way.

    Args:
        context: The session's.
        do: Does an operation; raises MaskletError, with nothing changed, if it is impossible.
        last_frame: The last frame that was tracked; None if none was.
    """

    def __init__(
        self, context: SessionContext, do: Callable[[events.Operation], None], last_frame: Callable[[], int | None]
    ) -> None:
        self._is_used = context.options.config.resumable
        self._reporter = context.reporter
        self._do = do
        self._last_frame = last_frame
        self._limits = context.limits
        self._snapshots = context.survival.snapshots
        restored = context.survival.restored
        self._is_closed = restored is not None  # until the video has come again
        # Results of all steps so far: the sequence of the last one.
        self._made = 0 if restored is None else restored.state.credits.last_sent
        self._waiting: deque[events.Operation] = deque()
        self._replayed = deque(context.replay.operations)
        self._known = context.replay.last_sequence

    async def take(self, operation: events.Operation) -> None:
        """Do an operation of the client, now or at the end of the step.

        Raises:
            MaskletError: It is impossible, and nothing is changed; or too many operations wait.
        """
        if not self._is_used:
            self._do(operation)
        elif self._is_closed or self._replayed or self._waiting or self._made < self._known:
            self._check_limits(operation)
            self._waiting.append(operation)
        else:
            await self._do_and_answer(operation)

    def _check_limits(self, operation: events.Operation) -> None:
        """Bound the operations that wait for the end of a step, or until a session that began anew has caught up."""
        if len(self._waiting) >= MOST_WAITING:
            raise ResourceExhausted(
                f"{MOST_WAITING} operations wait for the end of a step already, the most allowed; send further ones "
                "when these are answered"
            )
        prompts = [one.prompt for one in (operation, *self._waiting) if isinstance(one, events.PromptObject)]
        check_waiting_masks((one.mask_bytes for one in prompts), self._limits)

    @property
    def is_settled(self) -> bool:
        """Whether no operation waits, so that the session can be stored as it is."""
        return not (self._is_closed or self._waiting or self._replayed or self._made < self._known)

    async def open(self) -> None:
        """Tracking begins: let the first operations in."""
        self._is_closed = False
        await self._let_in()

    @asynccontextmanager
    async def step(self) -> AsyncIterator[StepOutcome]:
        """A step is under way inside the block, which sets the outcome, if there is one."""
        self._is_closed, made = self._is_used, StepOutcome()
        try:
            yield made
        finally:
            self._is_closed = False
        if made.outcome is not None:
            self._made += len(made.outcome.prompted) + 1
        await self._let_in()

    async def before_sending(self) -> None:
        """Results are about to be sent: wait until the operations that may have changed them are answered."""
        if self._is_used:
            await self._reporter.flush()

    async def let_all_in(self) -> bool:
        """There will be no further step: let everything in that waits for one. Returns whether anything waited."""
        waited = bool(self._replayed or self._waiting)
        if waited:
            self._made = max(self._made, self._known)
            while self._replayed:
                await self._repeat(self._replayed.popleft().operation)
            await self._let_in()
        return waited

    async def _let_in(self) -> None:
        while self._replayed and self._replayed[0].after_sequence <= self._made:
            await self._repeat(self._replayed.popleft().operation)
        while self._waiting and not self._replayed and self._made >= self._known:
            operation = self._waiting.popleft()
            try:
                await self._do_and_answer(operation)
            except MaskletError as error:
                await self._reporter.report(replies.answering(operation.request_id, replies.Problem(error)))

    async def _repeat(self, operation: events.Operation) -> None:
        """Do an operation whose answer the client has."""
        try:
            self._do(self._marked(operation))
        except MaskletError as error:
            await self._reporter.report(replies.answering(operation.request_id, replies.Problem(error)))

    async def _do_and_answer(self, operation: events.Operation) -> None:
        taken = self._taken(operation)
        self._do(self._marked(operation))
        self._did()
        await self._reporter.report(replies.answering(operation.request_id, replies.Applied(taken)))

    def _did(self) -> None:
        if self._snapshots is not None:
            self._snapshots.operation_taken()

    def _marked(self, operation: events.Operation) -> events.Operation:
        """A prompt with what its answer says; other operations as they are."""
        if not isinstance(operation, events.PromptObject):
            return operation
        return replace(operation, prompt=replace(operation.prompt, taken=self._taken(operation)))

    def _taken(self, operation: events.Operation) -> Taken:
        return Taken(operation.request_id, self._last_frame(), self._made)


class StepOutcome:
    """What a step gives.

    Attributes:
        outcome: What is sent of its frame; None if nothing is.
    """

    outcome: FrameOutcome | None = None
