"""The table of states: every pair of state and step is either a transition or an exact refusal."""

from __future__ import annotations

import itertools

import pytest

from masklet.errors import DataLoss, FailedPrecondition
from masklet_server.session.state import TRANSITIONS, State, StateMachine, Step, refusal

PAIRS = list(itertools.product(State, Step))


def machine_in(state: State) -> StateMachine:
    machine = StateMachine()
    machine.state = state
    return machine


@pytest.mark.parametrize(("state", "step"), [pair for pair in PAIRS if pair in TRANSITIONS])
def test_legal_steps_lead_where_the_table_says(state: State, step: Step) -> None:
    machine = machine_in(state)
    assert machine.step(step) is TRANSITIONS[state, step]
    assert machine.state is TRANSITIONS[state, step]


@pytest.mark.parametrize(("state", "step"), [pair for pair in PAIRS if pair not in TRANSITIONS])
def test_all_other_steps_are_refused_and_change_nothing(state: State, step: Step) -> None:
    machine = machine_in(state)
    with pytest.raises((FailedPrecondition, DataLoss)) as raised:
        machine.step(step)
    assert raised.value.message == refusal(state, step).message
    assert machine.state is state


def test_a_session_starts_configured_and_lives_through_all_states() -> None:
    machine = StateMachine()
    seen = [machine.state]
    for step in (Step.PROMPT, Step.VIDEO, Step.FIRST_FRAME, Step.END_OF_VIDEO, Step.LAST_RESULT):
        seen.append(machine.step(step))
    assert seen == [
        State.CONFIGURED,
        State.CONFIGURED,
        State.RECEIVING,
        State.TRACKING,
        State.DRAINING,
        State.DONE,
    ]
    assert machine.is_over


@pytest.mark.parametrize("state", [s for s in State if s not in (State.DONE, State.FAILED)])
def test_every_living_state_can_fail(state: State) -> None:
    machine = machine_in(state)
    assert machine.step(Step.FAILURE) is State.FAILED
    assert machine.is_over


@pytest.mark.parametrize(
    ("state", "step", "kind", "message"),
    [
        (State.TRACKING, Step.CONFIG, FailedPrecondition, "config came twice"),
        (State.CONFIGURED, Step.END_OF_VIDEO, DataLoss, "the video is empty"),
        (State.DRAINING, Step.VIDEO, FailedPrecondition, "more video came after end_of_video"),
        (State.DRAINING, Step.END_OF_VIDEO, FailedPrecondition, "end_of_video came twice"),
        (State.DONE, Step.PROMPT, FailedPrecondition, "prompt is not possible while the session is done"),
    ],
)
def test_refusals_say_what_was_wrong(state: State, step: Step, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        machine_in(state).step(step)
