"""Work on request whose server forgets it, or dies: the client repeats it, and the caller sees nothing of that."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import masklet
from masklet import Prompt
from masklet.compat import SAM2VideoPredictor
from masklet_server.embedded import EmbeddedServer
from tests.faults.history import History, violations
from tests.faults.proxy import Fault, Proxy
from tests.faults.server import ServerProcess
from tests.faults.streams import run
from tests.support.e2e import lossless, prompt, truth

pytestmark = pytest.mark.slow
Strike = Callable[[str], None]


@pytest.fixture(scope="module")
def forgetful() -> Iterator[str]:
    """A server that keeps a session no longer than its call."""
    with EmbeddedServer(device="cpu", dtype="float32", park_seconds=0.001) as address:
        yield address


def work(annotation: masklet.Annotation, history: History, strike: Strike) -> None:
    """An hour of somebody's work, in short. Each place at which the server may forget it has a name."""

    def seen(name: str, count: int, frames: Iterator[masklet.FrameResult]) -> None:
        for _ in range(count):
            history.add(next(frames))
        strike(name)

    history.add(annotation.prompt(prompt("point")))
    strike("prompt")
    with pytest.raises(masklet.InvalidArgument):
        annotation.prompt(Prompt(1, 99, [[1, 1]]))
    history.add(annotation.prompt(prompt("box", 1)))
    frames = annotation.propagate(0, 5)
    seen("propagate", 3, frames)
    seen("rest", 3, frames)
    assert next(frames, None) is None
    history.add(annotation.prompt(Prompt(1, 3, mask=truth(0, 3))))
    strike("correction")
    both = annotation.propagate(3, 4, "both")
    seen("forward", 2, both)
    seen("backward", 5, both)
    both.close()  # in the middle of its way back
    strike("stop")
    history.add(annotation.clear_prompts(1, 3))
    backward = annotation.propagate(4, 3, "backward", [2])
    seen("against time", 1, backward)
    for frame in backward:
        history.add(frame)
    annotation.remove_object(2)
    strike("remove")
    annotation.reset()
    strike("reset")
    history.add(annotation.prompt(prompt("box", 1)))
    for frame in annotation.propagate(0, 2):
        history.add(frame)
    strike("end")
    history.add(annotation.prompt(Prompt(2, 1, [[20, 20]], [0])))


def seen_of(address: str, strike: Strike = lambda name: None) -> tuple[History, list[masklet.ResumeEvent]]:
    """What a caller sees of that work."""
    history, events = History(), list[masklet.ResumeEvent]()
    with (
        masklet.Client(address) as client,
        client.annotate(
            lossless(), window=1, deterministic=True, resume_seconds=30.0, on_resume=events.append
        ) as annotation,
    ):
        work(annotation, history, strike)
    return history, events


@functools.cache
def undisturbed(address: str) -> tuple[tuple[object, ...], ...]:
    return tuple(comparable(seen_of(address)[0]))


def comparable(history: History) -> list[tuple[object, ...]]:
    return [(one.sequence, one.frame_index, one.revision, one.objects) for one in history.results]


@pytest.mark.parametrize(
    "places",
    [
        ("propagate", "reset"),
        ("stop",),
        *(
            pytest.param(places, marks=pytest.mark.soak)
            for places in (
                ("prompt", "rest"),
                ("correction", "forward"),
                ("backward",),
                ("against time", "remove", "end"),
            )
        ),
    ],
    ids=" ".join,
)
def test_a_server_that_forgets_changes_nothing(forgetful: str, places: tuple[str, ...]) -> None:
    should = undisturbed(forgetful)
    with Proxy(forgetful) as proxy:

        def strike(name: str) -> None:
            if name in places:
                proxy.strike(Fault("reset"))

        history, events = seen_of(proxy.address, strike)
    assert tuple(comparable(history)) == should
    assert [event.kind for event in events] == ["lost", "resumed"] * len(places)
    assert {event.how for event in events} == {None, "rewound"}


@pytest.mark.parametrize("name", ["live", pytest.param("corrected", marks=pytest.mark.soak)])
def test_a_token_that_has_expired_costs_no_stream_that_can_be_sent_again(name: str, forgetful: str) -> None:
    should, _ = run(name, forgetful)
    assert violations(should) == []
    with Proxy(forgetful) as proxy:
        proxy.arm(Fault("reset", "down", 4_000))
        history, events = run(name, proxy.address)
    assert violations(history, should) == []
    assert [event.how for event in events] == [None, "rewound"]


def test_it_may_forget_again_while_the_work_is_repeated(forgetful: str) -> None:
    should = undisturbed(forgetful)
    with Proxy(forgetful) as proxy:

        def strike(name: str) -> None:
            if name == "backward":
                proxy.strike(Fault("reset"))
                proxy.arm(Fault("reset", "down", 2_000))

        history, events = seen_of(proxy.address, strike)
        assert proxy.made["reset"] == 2
    assert tuple(comparable(history)) == should
    assert [event.kind for event in events] == ["lost", "resumed"] * 2


def test_a_stop_that_is_under_way_stops_no_earlier_and_not_much_later(forgetful: str) -> None:
    """The connection breaks while the stop is on its way: results that the caller has stay true."""
    with Proxy(forgetful) as proxy, masklet.Client(proxy.address) as client:
        for hold in (0, 3):
            with client.annotate(lossless(), window=1, deterministic=True) as annotation:
                annotation.prompt(prompt("point"))
                frames = annotation.propagate()
                indices = [next(frames).frame_index for _ in range(hold)]
                if hold:
                    annotation.stop()
                proxy.strike(Fault("reset"))
                if not hold:
                    annotation.reset()
                    annotation.prompt(prompt("point"))
                indices += [frame.frame_index for frame in frames]
                assert indices == list(range(len(indices)))
                assert hold == 0 or hold <= len(indices) <= hold + 2
                again = [frame.revision for frame in annotation.propagate(0, 5)]
                assert again == [int(index < len(indices)) for index in range(6)]


async def test_asyncio_goes_on_as_well(forgetful: str) -> None:
    should = undisturbed(forgetful)
    events = list[masklet.ResumeEvent]()
    history = History()
    with Proxy(forgetful) as proxy:
        async with (
            masklet.AsyncClient(proxy.address) as client,
            client.annotate(lossless(), window=1, deterministic=True, on_resume=events.append) as annotation,
        ):
            history.add(await annotation.prompt(prompt("point")))
            await asyncio.to_thread(proxy.strike, Fault("reset"))
            history.add(await annotation.prompt(prompt("box", 1)))
            async for frame in annotation.propagate(0, 5):
                history.add(frame)
                if frame.frame_index == 2:
                    await asyncio.to_thread(proxy.strike, Fault("reset"))
    assert tuple(comparable(history)) == should[: len(history.results)]
    assert [event.how for event in events] == [None, "rewound"] * 2


def test_the_video_predictor_goes_on_as_well(forgetful: str, tmp_path: Path) -> None:
    """As in the scripts of people who have used Meta's."""
    clip = tmp_path / "clip.mkv"
    clip.write_bytes(lossless())

    def logits(address: str, strike: Callable[[], None]) -> list[torch.Tensor]:
        with masklet.Client(address) as client:
            predictor = SAM2VideoPredictor(client, deterministic=True)
            state = predictor.init_state(str(clip))
            found = [predictor.add_new_points_or_box(state, 0, 1, points=[[96, 96]], labels=[1])[2]]
            for index, _, masks in predictor.propagate_in_video(state, max_frame_num_to_track=5):
                found.append(masks)
                if index == 2:
                    strike()
        return found

    with Proxy(forgetful) as proxy:
        disturbed = logits(proxy.address, lambda: proxy.strike(Fault("reset")))
        assert proxy.made["reset"] == 1
    should = logits(forgetful, lambda: None)
    assert len(disturbed) == len(should) == 7
    for one, other in zip(disturbed, should, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--grace", "1") as one:
        yield one


@pytest.mark.parametrize(
    "place", ["stop", *(pytest.param(one, marks=pytest.mark.soak) for one in ("propagate", "correction", "reset"))]
)
def test_a_killed_server_changes_nothing(server: ServerProcess, place: str) -> None:
    should = undisturbed(server.address)

    def strike(name: str) -> None:
        if name == place:
            server.kill()
            server.start()

    history, events = seen_of(server.address, strike)
    assert tuple(comparable(history)) == should
    assert [(event.kind, event.how) for event in events] == [("lost", None), ("resumed", "rewound")]


@pytest.mark.soak
def test_a_server_killed_while_it_tracks_changes_nothing(server: ServerProcess) -> None:
    should, _ = run("annotation", server.address)
    assert violations(should) == []

    def kill() -> None:
        server.kill()
        server.start()

    killer = threading.Thread(target=kill)

    class Watched(History):
        def add(self, result: masklet.FrameResult | masklet.PromptResult) -> None:
            super().add(result)
            if len(self.results) == 8:
                killer.start()

    history, events = run("annotation", server.address, history=Watched())
    killer.join(60)
    assert violations(history, should) == []
    assert [(event.kind, event.how) for event in events] == [("lost", None), ("resumed", "rewound")]
