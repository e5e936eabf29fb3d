"""Credits: never more than the window unacknowledged, whatever the order of events."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masklet.errors import InvalidArgument
from masklet_server.session.credits import Credits


async def test_a_window_of_frames_goes_ahead_and_an_ack_lets_more_go() -> None:
    window_credits = Credits(2)
    for expected in (1, 2):
        await window_credits.take()
        assert window_credits.number_frame() == expected
    waiting = asyncio.create_task(window_credits.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    window_credits.ack(1)
    await asyncio.wait_for(waiting, 5)
    assert window_credits.available == 0


async def test_a_frame_under_way_holds_its_credit() -> None:
    window_credits = Credits(1)
    await window_credits.take()
    assert window_credits.available == 0
    window_credits.number_frame()
    assert window_credits.available == 0
    window_credits.ack(1)
    assert window_credits.available == 1


async def test_prompt_results_have_numbers_but_cost_no_credit() -> None:
    window_credits = Credits(1)
    await window_credits.take()
    assert [window_credits.number_prompt(), window_credits.number_prompt(), window_credits.number_frame()] == [1, 2, 3]
    window_credits.ack(2)
    assert window_credits.available == 0
    window_credits.ack(3)
    assert window_credits.available == 1


async def test_an_ack_that_lies_is_refused_and_changes_nothing() -> None:
    window_credits = Credits(4)
    for _ in range(3):
        await window_credits.take()
        window_credits.number_frame()
    window_credits.ack(2)
    for sequence, message in ((4, "the last response sent was 3"), (1, "it must not go back")):
        with pytest.raises(InvalidArgument, match=message) as raised:
            window_credits.ack(sequence)
        assert raised.value.violations[0].field == "ack.sequence"
    assert window_credits.available == 3
    window_credits.ack(2)  # the same again says nothing new
    assert window_credits.available == 3


@settings(deadline=None)  # an event loop of its own takes long on a busy machine
@given(
    st.integers(1, 5),
    st.lists(st.sampled_from(["take", "frame", "give back", "prompt", "ack"]), max_size=60),
    st.randoms(),
)
def test_unacknowledged_frames_never_exceed_the_window(window: int, actions: list[str], random: object) -> None:
    async def live() -> None:
        window_credits = Credits(window)
        taken, frames, last, acked = 0, [], 0, 0
        for action in actions:
            if action == "take" and window_credits.available:
                await window_credits.take()
                taken += 1
            elif action == "frame" and taken:
                last = window_credits.number_frame()
                frames.append(last)
                taken -= 1
            elif action == "give back" and taken:
                window_credits.give_back()
                taken -= 1
            elif action == "prompt":
                last = window_credits.number_prompt()
            elif action == "ack" and last > acked:
                acked = random.randint(acked, last)  # type: ignore[attr-defined]
                window_credits.ack(acked)
            open_frames = sum(sequence > acked for sequence in frames)
            assert taken + open_frames <= window
            assert window_credits.available == window - taken - open_frames

    asyncio.run(live())


async def test_a_credit_that_was_not_needed_goes_back() -> None:
    window_credits = Credits(1)
    await window_credits.take()
    waiting = asyncio.create_task(window_credits.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    window_credits.give_back()
    await asyncio.wait_for(waiting, 1)


@pytest.mark.parametrize("how", ["ack", "lift"])
async def test_all_is_acknowledged_or_the_client_can_acknowledge_no_more(how: str) -> None:
    window_credits = Credits(4)
    await asyncio.wait_for(window_credits.all_acknowledged(), 1)
    await window_credits.take()
    waiting = asyncio.create_task(window_credits.all_acknowledged())
    await asyncio.sleep(0)
    sequence = window_credits.number_frame()
    await asyncio.sleep(0)
    assert not waiting.done()
    if how == "ack":
        window_credits.ack(sequence)
    else:
        window_credits.lift()
    await asyncio.wait_for(waiting, 1)
