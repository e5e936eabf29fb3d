"""The states of a session and what may happen in each, written out.

    CONFIGURED ──video──► RECEIVING ──first frame──► TRACKING
                              │                          │
                              └──────end of video────────┴──► DRAINING ──last result──► DONE

Every state but DONE may also end in FAILED. A video that says itself where it ends may be DONE straight from TRACKING.
"""

from __future__ import annotations

import enum

from masklet.errors import DataLoss, FailedPrecondition, MaskletError


class State(enum.Enum):
    """Where a session stands."""

    CONFIGURED = "configured"
    """The configuration is taken; no byte of video has come. Prompts may wait for their frames already."""

    RECEIVING = "receiving"
    """Video is arriving; no frame of it is decoded yet."""

    TRACKING = "tracking"
    """Frames are decoded and tracked while more video arrives."""

    DRAINING = "draining"
    """No more video will come; what there is is decoded, tracked and sent. Prompts for frames ahead are still taken."""

    DONE = "done"
    """Every result is sent. Late acknowledgements are taken and mean nothing."""

    FAILED = "failed"
    """Ended by an error, a cancellation or the client's going away; everything is freed."""


class Step(enum.Enum):
    """What may happen to a session."""

    CONFIG = "config"
    VIDEO = "video"
    PROMPT = "prompt"
    REMOVE_OBJECT = "remove_object"
    CLEAR_PROMPTS = "clear_prompts"
    PROPAGATE = "propagate"
    STOP_PROPAGATION = "stop_propagation"
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
    (State.TRACKING, Step.LAST_RESULT): State.DONE,  # some containers say themselves where they end
    (State.TRACKING, Step.FAILURE): State.FAILED,
    (State.DRAINING, Step.PROMPT): State.DRAINING,
    (State.DRAINING, Step.REMOVE_OBJECT): State.DRAINING,
    (State.DRAINING, Step.CLEAR_PROMPTS): State.DRAINING,
    (State.DRAINING, Step.ACK): State.DRAINING,
    (State.DRAINING, Step.FIRST_FRAME): State.DRAINING,
    (State.DRAINING, Step.LAST_RESULT): State.DONE,
    (State.DRAINING, Step.FAILURE): State.FAILED,
    (State.DONE, Step.ACK): State.DONE,
    # What is asked for on request may be asked at any time, and waits for the frames that it needs.
    **{
        (state, step): state
        for state in (State.CONFIGURED, State.RECEIVING, State.TRACKING, State.DRAINING)
        for step in (Step.CLEAR_PROMPTS, Step.PROPAGATE, Step.STOP_PROPAGATION, Step.RESET)
    },
}

_REFUSALS: dict[tuple[State, Step], MaskletError] = {
    (State.CONFIGURED, Step.END_OF_VIDEO): DataLoss("the video is empty: end_of_video came before any video"),
    (State.DRAINING, Step.VIDEO): FailedPrecondition(
        "more video came after end_of_video, which must be the last of it"
    ),
    (State.DRAINING, Step.END_OF_VIDEO): FailedPrecondition("end_of_video came twice"),
}


class StateMachine:
    """The state of one session; starts as CONFIGURED."""

    def __init__(self) -> None:
        self.state = State.CONFIGURED

    @property
    def is_over(self) -> bool:
        """DONE or FAILED."""
        return self.state in (State.DONE, State.FAILED)

    def step(self, step: Step) -> State:
        """Move on.

        Returns:
            The new state.

        Raises:
            FailedPrecondition: This may not happen in this state, which stays as it is.
            DataLoss: The video ended before it began.
        """
        try:
            self.state = TRANSITIONS[self.state, step]
        except KeyError:
            raise refusal(self.state, step) from None
        return self.state


def refusal(state: State, step: Step) -> MaskletError:
    """Why `step` may not happen in `state`."""
    if step is Step.CONFIG:
        return FailedPrecondition("config came twice; it must be the first message and the only one of its kind")
    known = _REFUSALS.get((state, step))
    if known is not None:
        return type(known)(known.message)
    return FailedPrecondition(f"{step.value} is not possible while the session is {state.value}")
