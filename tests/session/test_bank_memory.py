"""Objects of all sessions share memory: a prompt for which there is too little is refused, and nothing else happens."""

from __future__ import annotations

from dataclasses import replace

import pytest

from masklet.errors import InvalidArgument, ResourceExhausted
from masklet_server.budgets.budget import Bounds
from masklet_server.budgets.shares import BudgetLimits, Budgets
from masklet_server.engine.memory.sizes import MemorySizes
from masklet_server.session import events, replies
from masklet_server.session.events import ClearPrompts, Propagate, RemoveObject, Reset
from tests.support.fakes import FakeEngine
from tests.support.session import ON_REQUEST, Talk, answers, click, ids, talk, video

SIZES = MemorySizes(stream=100, tracked_object=10, conditioning_frame=3)


def engine() -> FakeEngine:
    fake = FakeEngine()
    fake.models = {name: replace(model, memory=SIZES) for name, model in fake.models.items()}
    return fake


def budgets(total: int = 0, per_client: int = 0) -> Budgets:
    return Budgets(BudgetLimits(bank_memory=Bounds(total, per_client)))


def refused(client: Talk) -> list[tuple[str, str]]:
    return [(type(p.error).__name__, p.error.violations[0].field) for p in client.all(replies.Problem)]


async def test_a_prompt_too_many_is_refused_and_the_stream_goes_on() -> None:
    shared = budgets(per_client=126)
    async with talk(engine=engine(), share=shared.of("a")) as client:
        client.say(click(1), click(2), click(3, 2), *video(4))
        client.half_close()
        await client.end()
        assert refused(client) == [("ResourceExhausted", "max_bank_memory_bytes_per_client")]
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[1, 2]] * 4
    assert shared.banks.used == 0


async def test_clients_share_what_there_is() -> None:
    shared = budgets(total=230)
    async with (
        talk(engine=engine(), share=shared.of("a")) as one,
        talk(engine=engine(), share=shared.of("b")) as other,
    ):
        one.say(click(1))
        await one.until(lambda: shared.banks.used_by("a") == 113)
        other.say(click(1), click(2))
        await other.until(lambda: other.problems)
        assert refused(other) == [("ResourceExhausted", "max_bank_memory_bytes")]
        assert shared.banks.used_by("b") == 113
        one.say(RemoveObject(1))
        await one.until(lambda: not shared.banks.used_by("a"))
        other.say(click(2))
        await other.until(lambda: shared.banks.used_by("b") == 126)


async def test_automatic_propagation_counts_objects_and_conditioning_frames() -> None:
    shared = budgets()
    async with talk(engine=engine(), share=shared.of("a")) as client:
        used = shared.banks
        client.say(click(1, 0), click(1, 0), click(1, 3))
        await client.until(lambda: used.used == 116)  # twice on one frame is one conditioning frame
        client.say(ClearPrompts(1, 3))
        await client.until(lambda: used.used == 113)
        client.say(click(1, 0, (999.0, 1.0)), events.VideoChunk(bytes(2)))
        await client.until(lambda: client.sources.made and client.source.taken >= 1)
        client.say(click(4, 1, (999.0, 1.0)))
        await client.until(lambda: len(client.problems) == 2)
        assert used.used == 113
        client.say(RemoveObject(1))
        await client.until(lambda: used.used == 0)


async def test_corrections_of_an_object_take_no_memory_of_banks() -> None:
    shared = budgets(per_client=113)
    config = events.Configure(correction_window=4)
    async with talk(config, engine=engine(), share=shared.of("a")) as client:
        client.say(click(1, 0), *video(3))
        await client.frames(3)
        client.say(click(1, 1), click(2, 1))
        await client.until(lambda: client.problems)
        assert refused(client) == [("ResourceExhausted", "max_bank_memory_bytes_per_client")]
        await client.frames(5)  # frames 1 and 2 once more
    assert shared.banks.used == 0


async def test_on_request_counts_and_gives_back() -> None:
    shared = budgets(per_client=129)
    async with talk(ON_REQUEST, engine=engine(), share=shared.of("a")) as client:
        used = shared.banks
        client.say(*video(5), click(1, 0), click(1, 4), click(2, 0))
        await answers(client, 3)
        assert used.used == 129
        client.say(click(2, 1), click(3, 0), Propagate())
        await client.until(lambda: client.all(replies.PropagationDone))
        assert refused(client) == [("ResourceExhausted", "max_bank_memory_bytes_per_client")] * 2
        assert [ids(result) for result in client.all(replies.FrameResult)] == [[1, 2]] * 5
        client.say(RemoveObject(2), click(3, 1))
        await client.until(lambda: used.used == 129 and len(client.all(replies.PromptResult)) == 4)
        client.say(Reset(), click(1, 0))
        await client.until(lambda: used.used == 113)
    assert shared.banks.used == 0


@pytest.mark.parametrize("kind", [InvalidArgument, ResourceExhausted])
async def test_a_prompt_that_the_engine_refuses_takes_nothing(kind: type[Exception]) -> None:
    shared, fake = budgets(), engine()
    fake.refuse = lambda _: kind("no")
    async with talk(ON_REQUEST, engine=fake, share=shared.of("a")) as client:
        client.say(*video(5), click(1, 0))
        await client.until(lambda: client.problems)
        assert shared.banks.used == 0
