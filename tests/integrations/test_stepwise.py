"""Sessions that several objects share, asked one picture and one object at a time, over a real channel."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

import masklet
from masklet.integrations import stepwise
from masklet.integrations.stepwise import Picture, SharedSessions
from tests.support.e2e import frames, prompt, truth
from tests.support.synthetic import iou


def picture(index: int) -> Picture:
    return Picture(Image.fromarray(frames()[index]))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class CountingClient(masklet.Client):
    """Counts the live calls, and keeps them so that a test can end one."""

    def live(self, *arguments: Any, **options: Any) -> masklet.Live:
        self.lives: list[masklet.Live] = [*getattr(self, "lives", []), super().live(*arguments, **options)]
        return self.lives[-1]


@pytest.fixture
def counting(nano_server: str) -> CountingClient:
    return CountingClient(nano_server)


def test_objects_of_one_picture_share_a_session_and_have_the_masks_of_track(
    counting: CountingClient, client: masklet.Client
) -> None:
    sessions = SharedSessions(counting, "", idle_seconds=60)
    first = picture(0)
    session = first.session = sessions.of(first)
    assert sessions.of(first) is session, "it has not begun"
    ids = [session.add({"mask": truth(blob)}) for blob in (0, 1)]
    wanted = list(client.track(list(frames()[:5]), [prompt("mask", 0), prompt("mask", 1)]))
    for index in range(1, 5):
        shown = picture(index)
        for blob, object_id in enumerate(ids):
            found = session.result(shown, object_id)
            assert found is not None
            assert iou(found.mask, truth(blob, index)) > 0.6
            # A clip of known length counts its pointers in another way than a stream; masks differ by single pixels.
            assert (found.mask == wanted[index].objects[blob + 1].mask).mean() > 0.999
    assert len(counting.lives) == 1
    assert sessions.of(first) is not session, "it has begun, and takes no more objects"
    sessions.close()


def test_a_session_that_the_server_has_ended_goes_on_from_the_last_masks(counting: CountingClient) -> None:
    sessions = SharedSessions(counting, "", idle_seconds=60)
    session = sessions.of(picture(0))
    session.add({"mask": truth(0)})
    session.result(picture(1), 1)
    for end in (counting.lives[-1].close, counting.lives[-1].cancel, session.end):
        end()
        begun = len(counting.lives)
        found = session.result(picture(2), 1)
        assert found is not None
        assert iou(found.mask, truth(0, 2)) > 0.6
        assert len(counting.lives) in (begun, begun + 1)
    assert len(counting.lives) >= 3
    sessions.close()


def test_idle_sessions_end_and_others_are_kept_alive(counting: CountingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepwise, "_KEEP_ALIVE_SECONDS", 0.05)
    kept: list[int] = []
    monkeypatch.setattr(masklet.Live, "keep_alive", lambda self: kept.append(id(self)))
    sessions = SharedSessions(counting, "", idle_seconds=1.0)
    session = sessions.of(picture(0))
    session.add({"mask": truth(0)})
    session.result(picture(1), 1)
    wait_for(lambda: bool(kept))
    live = counting.lives[0]

    def has_ended() -> bool:
        try:
            live.prompt(prompt("mask", 1), frame_index=1)
        except masklet.FailedPrecondition:
            return True
        return False

    wait_for(has_ended)
    assert session.result(picture(2), 1) is not None
    assert len(counting.lives) == 2
    sessions.close()


def test_a_session_without_states_is_freed(nano_server: str) -> None:
    with masklet.Client(nano_server) as client:
        sessions = SharedSessions(client, "", idle_seconds=60)
        session = sessions.of(picture(0))
        session.add({"box": prompt("box").box})
        assert session.result(picture(1), 1) is not None
        del session
        gc.collect()
        assert len(sessions) == 0
        sessions.close()


def test_wrong_prompts_are_refused_at_once(counting: CountingClient) -> None:
    session = SharedSessions(counting, "", idle_seconds=60).of(picture(0))
    with pytest.raises(masklet.InvalidArgument, match="box"):
        session.add({"box": [5, 5, 1, 1]})
    broken = SharedSessions(counting, "nonsense", idle_seconds=60).of(picture(0))
    broken.add({"mask": truth(0)})
    with pytest.raises(masklet.NotFound, match="'nonsense' is not loaded"):
        broken.result(picture(1), 1)
