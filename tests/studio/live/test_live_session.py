"""A camera in the studio, over HTTP and WebSocket, with a real server and nano: seen, tracked, recorded, let go."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from masklet_media.confinement import SECCOMP
from masklet_server.video.sandbox.layers import missing_layers
from tests.support import e2e, streams
from tests.support.e2e import Mask
from tests.support.live import LOOP, LivePage, Shown, begin, frame_of, look_at
from tests.support.rtsp import Behaviour, RtspServer
from tests.support.studio import RunningStudio, children, running_studio, wait_for
from tests.support.synthetic import iou

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studio(nano_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """A studio for all tests of a module."""
    with running_studio(tmp_path_factory.mktemp("live") / "work", server=nano_server) as running:
        yield running


@pytest.fixture
def camera() -> Iterator[str]:
    """The address of a camera that shows the clip, there and back; slow enough for busy cores to see most of it."""
    with RtspServer(LOOP, rate=8) as server:
        yield server.url


def lies_on(mask: Mask, blob: int, index: int) -> bool:
    """Whether a mask is that of a blob on this frame, and not that of a frame nearby."""
    here = iou(mask, e2e.truth(blob, index))
    nearby = [one for one in (index - 2, index + 2) if 0 <= one < e2e.NUM_FRAMES]
    return here > 0.45 and all(here > iou(mask, e2e.truth(blob, one)) - 0.02 for one in nearby)


def is_right(shown: Shown, blob: int) -> bool:
    """Whether the picture has a mask of a blob that lies on it."""
    return blob + 1 in shown.masks and lies_on(shown.masks[blob + 1].mask, blob, shown.index)


def with_objects(page: LivePage, *blobs: int) -> None:
    """Click blobs, each as an object of its own."""
    page.wait("status", lambda status: bool(status["server"]))
    for blob in blobs:
        page.do("add_object", name=f"blob {blob}", **{"class": "blob"})
        page.click(blob)
        page.until(lambda shown, blob=blob: blob + 1 in shown.masks and shown.masks[blob + 1].area > 0)  # type: ignore[misc]


def test_masks_lie_on_the_pictures_that_are_seen(studio: RunningStudio, camera: str) -> None:
    with look_at(studio, begin(studio, source=camera)) as page:
        assert page.state["video"]["live"]
        with_objects(page, 0, 1)
        seen = page.look(12)
        assert sum(is_right(shown, 0) for shown in seen) >= 9
        assert all({1, 2} == shown.masks.keys() for shown in seen)
        numbers = [shown.number for shown in page.shown]
        assert numbers == sorted(set(numbers)), "each picture is newer than the one before"
        status = page.wait("status")
        assert status["state"] == "running"
        assert 1 <= status["latency"] < 5000
        assert status["frames_per_second"] > 0
        assert page.state["video"]["name"] == camera
        page.do("remove_object", object=1)
        assert 1 not in page.until(lambda shown: 1 not in shown.masks and 2 in shown.masks).masks


def test_a_recording_is_a_video_with_its_objects_and_masks(studio: RunningStudio, camera: str) -> None:
    with look_at(studio, begin(studio, source=camera)) as page:
        with_objects(page, 0)
        page.do("record", on=True)
        page.wait("recording", lambda event: event["on"] and event["frames"] >= 3)
        page.do("add_object", name="late")
        page.click(1)
        page.wait("recording", lambda event: event["on"] and event["frames"] >= 12)
        page.do("record", on=False)
        ended = page.last("recording")
    assert not ended["on"]
    assert ended["error"] is None
    video = next(one for one in studio.videos() if one["id"] == ended["video"]["id"])
    assert (video["width"], video["height"], video["error"]) == (e2e.WIDTH, e2e.HEIGHT, None)
    assert video["frames"] == ended["frames"] >= 12
    times = studio.ask(f"/api/videos/{video['id']}/times").json
    assert times[0] == 0
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert video["fps"] == pytest.approx((len(times) - 1) / times[-1], rel=0.25)
    with studio.tab(video["id"]) as tab:
        assert [(one["name"], one["class"]) for one in tab.state["objects"]] == [("blob 0", "blob"), ("late", "")]
        tab.do("masks", **{"from": 0, "to": video["frames"] - 1})
        fits = 0
        for frame in range(video["frames"]):
            index = frame_of(studio.ask(f"/videos/{video['id']}/frames/{frame}?width=full").body)
            fits += lies_on(tab.masks[1, frame].mask, 0, index)
        assert fits >= 0.8 * video["frames"]
        late = [frame for one, frame in tab.masks if one == 2]
        assert late == list(range(late[0], video["frames"]))
        assert late[0] > 0
        prompts = {one["object"]: one for one in tab.state["prompts"]}
        assert (prompts[1]["frame"], prompts[1]["has_mask"]) == (0, True)
        assert prompts[2]["frame"] == late[0]
        assert len(prompts[2]["points"]) == 1
        # It is a video like any other: it can be tracked anew.
        tab.track(0, objects=[1])
    studio.remove(video["id"])


def test_all_tabs_see_the_same_camera_and_a_slow_one_holds_up_nobody(studio: RunningStudio, camera: str) -> None:
    live_id = begin(studio, source=camera)
    assert begin(studio, source=camera) == live_id, "a camera that is open is found"
    assert live_id in [one["id"] for one in studio.ask("/api/state").json["live"]["sessions"]]
    with look_at(studio, live_id) as quick, look_at(studio, live_id) as slow:
        slow.draws = False
        with_objects(quick, 0)
        quick.look(10)
        while len(slow.shown) < 2:
            slow.hear()
        slow.do("ping")
        assert slow.last("objects")["objects"][0]["name"] == "blob 0"
        assert len(slow.shown) == 2, "it gets no picture before it has drawn those that it has"
        slow.draws = True
        slow.send("drawn", number=slow.shown[-1].number)
        assert slow.look()[-1].number > quick.shown[0].number + 5, "the newest picture comes next"


def test_a_camera_is_free_soon_after_the_last_tab_is_closed(studio: RunningStudio) -> None:
    wait_for(lambda: not children(studio, "camera_main"), 60)  # those of earlier tests
    with RtspServer(LOOP) as server:
        with look_at(studio, begin(studio, source=server.url)) as page:
            page.look(2)
            (process,) = children(studio, "camera_main")
            status = Path(f"/proc/{process}/status").read_text()
            if SECCOMP not in missing_layers():
                assert "Seccomp:\t2\n" in status, "it confines itself before it reads"
            assert "NoNewPrivs:\t1\n" in status
        wait_for(lambda: not studio.ask("/api/state").json["live"]["sessions"], 30)
        wait_for(lambda: not children(studio, "camera_main"), 10)


def test_an_ended_session_frees_the_camera_at_once(studio: RunningStudio, camera: str) -> None:
    live_id = begin(studio, source=camera)
    with look_at(studio, live_id) as page:
        page.look()
        assert studio.ask(f"/api/live/{live_id}", "DELETE").status == 200
        assert (
            page.wait("status", lambda status: status["state"] == "ended")["message"] == "The live session was ended."
        )
    assert studio.ask(f"/api/live/{live_id}", "DELETE").status == 404


def test_pictures_of_a_browser_are_tracked(studio: RunningStudio) -> None:
    live_id = begin(studio, browser=True)
    with look_at(studio, live_id) as page, look_at(studio, live_id) as other:
        assert page.state["video"]["from_page"]
        pictures = itertools.cycle(LOOP)
        page.camera = lambda: _jpeg(next(pictures))
        page.do("give_camera")
        reply = other.ask("give_camera")
        assert "another tab" in reply["error"]["message"]
        with_objects(page, 0)
        other.until(lambda shown: is_right(shown, 0))
        page.camera = lambda: b"no picture"
        assert "no JPEG" in page.wait("say")["message"]


def _jpeg(pixels: object) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=92)  # type: ignore[arg-type]
    return data.getvalue()


@pytest.mark.parametrize(
    ("source", "status", "word"),
    [
        ({"source": "/etc/passwd"}, 400, "neither the address"),
        ({"source": "-"}, 400, "neither the address"),
        ({"source": ""}, 400, "address of a stream"),
        ({"named": 0}, 400, "must be below 0"),
        ({}, 400, "address of a stream"),
    ],
)
def test_what_is_no_camera_is_refused(studio: RunningStudio, source: dict[str, Any], status: int, word: str) -> None:
    answer = studio.post("/api/live", **source)
    assert answer.status == status
    assert word in answer.json["error"]["message"]


def test_an_address_that_does_not_answer_is_told(studio: RunningStudio) -> None:
    port = streams.free_port()
    with look_at(studio, begin(studio, source=f"rtsp://user:secret@127.0.0.1:{port}/stream")) as page:
        ended = page.wait("status", lambda status: status["state"] == "ended")
    assert f"rtsp://127.0.0.1:{port}/stream cannot be" in ended["message"]
    assert "secret" not in str(page.events)


def test_the_end_of_a_stream_is_told_and_ends_the_recording(studio: RunningStudio, tmp_path: Path) -> None:
    streams.write(str(tmp_path / "clip.ts"), "mpegts", LOOP * 2, {})
    with streams.files(tmp_path) as address, look_at(studio, begin(studio, source=f"{address}/clip.ts")) as page:
        page.do("record", on=True)
        page.wait("recording", lambda event: not event["on"] and event.get("video"))
        ended = page.wait("status", lambda status: status["state"] == "ended")
    assert ended["message"] == "The stream has ended."
    assert len(studio.videos()) == 1
    studio.remove(studio.videos()[0]["id"])


def test_a_camera_that_breaks_off_is_connected_again(studio: RunningStudio) -> None:
    with RtspServer(LOOP, Behaviour(frames=30), Behaviour()) as server:
        with look_at(studio, begin(studio, source=server.url)) as page:
            page.wait("status", lambda status: status["state"] == "waiting" and "broke off" in status["message"])
            page.wait("status", lambda status: status["state"] == "running")
            page.look(2)
        wait_for(lambda: server.connections == 2, 30)


def test_only_named_cameras_where_others_are_not_allowed(nano_server: str, tmp_path: Path) -> None:
    with RtspServer(LOOP) as server, RtspServer(LOOP) as other:
        options = (server.url, "--named-sources")
        with running_studio(tmp_path / "work", server=nano_server, options=options) as studio:
            told = studio.ask("/api/state").json["live"]
            assert (told["named"], told["any_source"]) == ([server.url], False)
            answer = studio.post("/api/live", source=other.url)
            assert answer.status == 409
            assert "--any-source" in answer.json["error"]["message"]
            with look_at(studio, begin(studio, named=0)) as page:
                page.look()


def test_a_recording_ends_at_its_quota_and_is_whole(nano_server: str, tmp_path: Path, camera: str) -> None:
    with (
        running_studio(tmp_path / "work", server=nano_server, options=("--max-recording-gib", "0.0001")) as studio,
        look_at(studio, begin(studio, source=camera)) as page,
    ):
        page.do("record", on=True)
        ended = page.wait("recording", lambda event: not event["on"] and event.get("error"))
        assert "--max-recording-gib" in ended["error"]
        assert 0 < ended["bytes"] <= 0.0001 * 2**30
        assert page.look(), "the camera goes on"
        assert studio.videos()[0]["frames"] == ended["frames"] > 1


def test_a_killed_studio_leaves_a_recording_that_can_be_used(nano_server: str, tmp_path: Path, camera: str) -> None:
    with running_studio(tmp_path / "work", server=nano_server) as studio:
        with look_at(studio, begin(studio, source=camera)) as page:
            with_objects(page, 0)
            page.do("record", on=True)
            page.wait("recording", lambda event: event["on"] and event["frames"] >= 8)
            before = children(studio, "camera_main")
            studio.kill()
        for _ in range(100):
            if not any(Path(f"/proc/{pid}").exists() for pid in before):
                break
            time.sleep(0.1)
        assert not any(Path(f"/proc/{pid}").exists() for pid in before), "the camera is free"
    with running_studio(tmp_path / "work", server=nano_server) as studio:
        (video,) = studio.videos()
        assert video["error"] is None
        assert video["frames"] >= 7
        with studio.tab(video["id"]) as tab:
            (lane,) = tab.state["lanes"]
            assert lane["runs"][-1][1] < video["frames"], "no mask beyond the last frame"
            assert sum(last - first + 1 for first, last, _ in lane["runs"]) >= 6
            assert tab.state["objects"][0]["name"] == "blob 0"
