"""The states of a session, and what may happen in each.

    CONFIGURED ──video──► RECEIVING ──first frame──► TRACKING
                              │                          │
                              └──────end of video────────┴──► DRAINING ──last result──► DONE

Every state but DONE may also end in FAILED. If the container says where the video ends,
TRACKING may be followed by DONE.
"""

from __future__ import annotations

import enum

from masklet.errors import DataLoss, FailedPrecondition, MaskletError


class State(enum.Enum):
    """The state of a session."""

    CONFIGURED = "configured"
    """The configuration has arrived, but no video. Prompts may wait for their frames already."""

    RECEIVING = "receiving"
    """Video arrives, but no frame of it is decoded yet."""

    TRACKING = "tracking"
    """Frames are decoded and tracked while more video arrives."""

    DRAINING = "draining"
    """No more video will come. The rest is decoded, tracked and sent. Prompts for later frames are still taken."""

    DONE = "done"
    """Every result is sent. Late acknowledgements are taken, and mean nothing."""

    FAILED = "failed"
    """The session was ended by an error or a cancellation, or because the client went away. Everything is freed."""


class Step(enum.Enum):
    """What may happen to a session."""

    CONFIG = "config"
    VIDEO = "video"
    PROMPT = "prompt"
    REMOVE_OBJECT = "remove_object"
    CLEAR_PROMPTS = "clear_prompts"
    PROPAGATE = "propagate"
    STOP_PROPAGATION = "stop_propagation"
    PREPARE = "prepare"
    RESET = "reset"
    ACK = "ack"
    END_OF_VIDEO = "end_of_video"
    FIRST_FRAME = "the first frame"
    LAST_RESULT = "the last result"
    FAILURE = "failure"


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.CONFIGURED, Step.VIDEO): State.RECEIVING,
    (State.CONFIGURED, Step.PROMPT): State.CONFIGURED,
    (State.CONFIGURED, Step.REMOVE_OBJECT): State.CONFIGURED,
    (State.CONFIGURED, Step.CLEAR_PROMPTS): State.CONFIGURED,
    (State.CONFIGURED, Step.ACK): State.CONFIGURED,
    (State.CONFIGURED, Step.FAILURE): State.FAILED,
    (State.RECEIVING, Step.VIDEO): State.RECEIVING,
    (State.RECEIVING, Step.PROMPT): State.RECEIVING,
    (State.RECEIVING, Step.REMOVE_OBJECT): State.RECEIVING,
    (State.RECEIVING, Step.CLEAR_PROMPTS): State.RECEIVING,
    (State.RECEIVING, Step.ACK): State.RECEIVING,
    (State.RECEIVING, Step.END_OF_VIDEO): State.DRAINING,
    (State.RECEIVING, Step.FIRST_FRAME): State.TRACKING,
    (State.RECEIVING, Step.FAILURE): State.FAILED,
    (State.TRACKING, Step.VIDEO): State.TRACKING,
    (State.TRACKING, Step.PROMPT): State.TRACKING,
    (State.TRACKING, Step.REMOVE_OBJECT): State.TRACKING,
    (State.TRACKING, Step.CLEAR_PROMPTS): State.TRACKING,
    (State.TRACKING, Step.ACK): State.TRACKING,
    (State.TRACKING, Step.END_OF_VIDEO): State.DRAINING,
    (State.TRACKING, Step.LAST_RESULT): State.DONE,  # some containers say where the video ends
    (State.TRACKING, Step.FAILURE): State.FAILED,
    (State.DRAINING, Step.PROMPT): State.DRAINING,
    (State.DRAINING, Step.REMOVE_OBJECT): State.DRAINING,
    (State.DRAINING, Step.CLEAR_PROMPTS): State.DRAINING,
    (State.DRAINING, Step.ACK): State.DRAINING,
    (State.DRAINING, Step.FIRST_FRAME): State.DRAINING,
    (State.DRAINING, Step.LAST_RESULT): State.DONE,
    (State.DRAINING, Step.FAILURE): State.FAILED,
    (State.DONE, Step.ACK): State.DONE,
    # With propagation on request, requests may come at any time, and wait for the frames that they need.
    **{
        (state, step): state
        for state in (State.CONFIGURED, State.RECEIVING, State.TRACKING, State.DRAINING)
        for step in (Step.CLEAR_PROMPTS, Step.PROPAGATE, Step.STOP_PROPAGATION, Step.PREPARE, Step.RESET)
    },
}

_REFUSALS: dict[tuple[State, Step], MaskletError] = {
    (State.CONFIGURED, Step.END_OF_VIDEO): DataLoss(
        "the video is empty: end_of_video came before any video; send the video first"
    ),
    (State.DRAINING, Step.VIDEO): FailedPrecondition(
        "more video came after end_of_video; send end_of_video once, after all video"
    ),
    (State.DRAINING, Step.END_OF_VIDEO): FailedPrecondition("end_of_video came twice; send it once, after all video"),
}


class StateMachine:
    """The state of one session; starts as CONFIGURED."""

    def __init__(self) -> None:
        self.state = State.CONFIGURED

    @property
    def is_over(self) -> bool:
        """Whether the session is DONE or FAILED."""
        return self.state in (State.DONE, State.FAILED)

    def step(self, step: Step) -> State:
        """Go to the next state.

        Returns:
            The new state.

        Raises:
            FailedPrecondition: The step is not allowed in this state, which does not change.
            DataLoss: The video ended before it began.
        """
        try:
            self.state = TRANSITIONS[self.state, step]
        except KeyError:
            raise refusal(self.state, step) from None
        return self.state


def refusal(state: State, step: Step) -> MaskletError:
    """The error for a step that is not allowed in a state."""
    if step is Step.CONFIG:
        return FailedPrecondition("config came twice; send it once, as the first message")
    known = _REFUSALS.get((state, step))
    if known is not None:
        return type(known)(known.message)
    return FailedPrecondition(f"{step.value} is not possible while the session is {state.value}")
