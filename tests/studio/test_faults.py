"""What goes wrong around a studio loses nothing: a killed studio, a server that restarts, tabs that do not read."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from masklet_server.embedded import EmbeddedServer
from tests.support import clips
from tests.support.e2e import HEIGHT, NUM_FRAMES, WIDTH, center, frames, lossless
from tests.support.studio import Page, RunningStudio, children, running_studio, wait_for

pytestmark = pytest.mark.slow
LONG = 4


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """The clip forward, backward, and so on, which takes seconds to track."""
    path = tmp_path / "clip.mkv"
    pictures = [*frames(), *frames()[::-1]] * (LONG // 2)
    path.write_bytes(clips.make_clip("matroska", "ffv1", size=(WIDTH, HEIGHT), pixel_format="bgr0", pictures=pictures))
    return path


def _begin(page: Page) -> int:
    one: int = page.do("add_object", name="ball")["object"]
    page.click(one, 0, (*center(0), 1))
    return one


def _until_frame(page: Page, frame: int) -> None:
    page.wait("tracking", lambda told: told["frame"] >= frame)


def test_nothing_is_lost_when_the_studio_is_killed(nano_server: str, tmp_path: Path, clip: Path) -> None:
    last = LONG * NUM_FRAMES - 1
    with running_studio(tmp_path / "work", clip, server=nano_server) as studio:
        video = studio.videos()[0]["id"]
        with contextlib.suppress(ConnectionError), studio.tab(video) as page:
            one = _begin(page)
            page.do("change_object", object=one, name="the ball", **{"class": "toy"})
            page.do("marks", **{"in": 0, "out": last})
            page.do("track", direction="forward", objects=None, **{"from": 0})
            _until_frame(page, 8)
            studio.kill()
            while True:
                page.hear()
        seen = dict(page.masks)
        before = {"objects": page.state["objects"], "prompts": page.state["prompts"]}
        assert len(seen) > 8
    assert before == {"objects": [], "prompts": []}
    with running_studio(tmp_path / "work", clip, server=nano_server) as studio:
        assert [one["id"] for one in studio.videos()] == [video]
        with studio.tab(video) as page:
            assert [(o["name"], o["class"]) for o in page.state["objects"]] == [("the ball", "toy")]
            assert page.state["marks"] == {"in": 0, "out": last}
            assert [prompt["frame"] for prompt in page.state["prompts"]] == [0]
            page.do("masks", **{"from": 0, "to": last})
            assert {key: page.masks[key] for key in seen} == seen  # and perhaps some that were not sent any more
            stopped = max(frame for _, frame in page.masks)
            assert stopped < last
            page.track(stopped)
            assert {frame for _, frame in page.masks} == set(range(last + 1))
            assert page.masks[one, stopped] == seen.get((one, stopped), page.masks[one, stopped])
            for verb in ("track", "track", "marks", "change_object", "prompt", "add_object"):
                assert page.do("undo")["did"] == verb
            assert page.state["objects"] == []
            assert not page.state["can_undo"]
            page.do("redo")
            page.do("redo")
            assert [o["name"] for o in page.state["objects"]] == ["ball"]
            page.do("masks", **{"from": 0, "to": 5})
            assert page.masks == {(one, 0): seen[one, 0]}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def _server(port: int) -> Iterator[str]:
    with EmbeddedServer(device="cpu", dtype="float32", address=f"127.0.0.1:{port}") as address:
        yield address


def test_a_server_that_restarts_is_told_everything_again(tmp_path: Path, clip: Path) -> None:
    port, last = _free_port(), LONG * NUM_FRAMES - 1
    with contextlib.ExitStack() as stack:
        studio = stack.enter_context(running_studio(tmp_path / "work", clip, server=f"127.0.0.1:{port}"))
        with studio.tab(studio.videos()[0]["id"]) as page:
            gone = page.wait("connection")
            assert not gone["connected"]
            one = page.do("add_object")["object"]
            reply = page.do("prompt", object=one, frame=0, points=[[*center(0), 1]], box=None, mask=None)
            assert reply["pending"], "there is no server yet"
            assert page.masks == {}
            with _server(port):
                page.wait("connection", lambda told: bool(told["connected"]))
                while (one, 0) not in page.masks:
                    page.hear()
                two = page.do("add_object")["object"]
                page.click(two, 0, (*center(1), 1))
                page.do("track", direction="forward", objects=None, **{"from": 0})
                _until_frame(page, 5)
            page.wait("connection", lambda told: not told["connected"])
            stood = page.do("ping")
            assert stood["ok"]
            with _server(port):
                ended = page.wait("tracking", lambda told: not told["running"], 120)
                assert ended["error"] is None
                assert page.masks.keys() == {(o, n) for o in (one, two) for n in range(last + 1)}
                areas = [page.masks[one, n].area for n in range(last + 1)]
                assert min(areas) > 0.5 * max(areas), "the object is followed over the restart"
                page.click(one, 30, (*center(0, 5), 1))


def test_two_tabs_see_the_same(nano_server: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    path.write_bytes(lossless())
    with running_studio(tmp_path / "work", path, server=nano_server) as studio:
        video = studio.videos()[0]["id"]
        with studio.tab(video) as left, studio.tab(video) as right:
            one = _begin(left)
            right.wait("objects")
            right.click(one, 3, (*center(0, 3), 1))
            left.do("track", direction="forward", objects=[one], **{"from": 0})
            for tab in (left, right):
                tab.wait("tracking", lambda told: not told["running"])
            left.do("ping")
            right.do("ping")
            assert left.masks.keys() == {(one, n) for n in range(NUM_FRAMES)}
            right.do("masks", **{"from": 0, "to": NUM_FRAMES - 1})
            left.do("masks", **{"from": 0, "to": NUM_FRAMES - 1})
            assert left.masks == right.masks
            right.do("undo")
            left.wait("state")
            assert left.state == right.state


def test_a_tab_that_does_not_read_holds_up_nobody(nano_server: str, tmp_path: Path, clip: Path) -> None:
    with running_studio(tmp_path / "work", clip, server=nano_server) as studio:
        video = studio.videos()[0]["id"]
        address = f"ws://{studio.host}/api/videos/{video}/session"
        with connect(address, max_queue=1, compression=None) as idle, studio.tab(video) as page:
            _begin(page)
            page.track(0)
            assert len(page.masks) == LONG * NUM_FRAMES
            assert idle.recv(5)


def test_a_project_has_one_studio_at_a_time(nano_server: str, tmp_path: Path) -> None:
    project = tmp_path / "work"
    with running_studio(project, server=nano_server) as first:
        with (
            pytest.raises(AssertionError, match="another studio has the project"),
            running_studio(project, server=nano_server),
        ):
            pass
        assert first.ask("/api/state").status == 200


def _status(studio: RunningStudio, path: str, method: str = "GET", **headers: str) -> int:
    return studio.ask(path, method, b"{}" if method == "POST" else None, headers).status


def test_pages_of_other_sites_get_nothing(nano_server: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    path.write_bytes(lossless())
    with running_studio(tmp_path / "work", path, server=nano_server) as studio:
        video = studio.videos()[0]["id"]
        evil, own = "http://evil.example", f"http://{studio.host}"
        assert _status(studio, "/api/state") == 200
        assert _status(studio, "/api/state", Host="evil.example") == 403  # DNS rebinding
        assert _status(studio, f"/videos/{video}/frames/0", Host=f"evil.example:{studio.host[-4:]}") == 403
        assert _status(studio, "/api/state", Host="[") == 403
        assert _status(studio, "/api/uploads", "POST", Origin=evil) == 403
        assert _status(studio, "/api/uploads", "POST", Origin="http://[") == 403
        assert _status(studio, "/api/uploads", "POST", Origin="null") == 403
        assert _status(studio, "/api/uploads", "POST", **{"Sec-Fetch-Site": "cross-site"}) == 403
        assert _status(studio, "/api/uploads", "POST", Origin=own) == 400  # let through, and then: no name
        with pytest.raises(Exception, match="403"), studio.tab(video, Origin=evil):
            pass
        with studio.tab(video, Origin=own) as page:
            assert page.do("ping")["ok"]
        policy = studio.ask("/api/state").headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert _status(studio, "/page/../../../pyproject.toml") == 404
        assert _status(studio, "/page/%2e%2e/cli.py") == 404


def test_elsewhere_a_token_is_needed(nano_server: str, tmp_path: Path) -> None:
    options = ("--token", "a-secret")
    with running_studio(tmp_path / "work", server=nano_server, options=options, address="0.0.0.0:0") as studio:
        port = studio.host.rpartition(":")[2]
        studio.url = f"http://127.0.0.1:{port}"
        assert studio.token == "a-secret"
        assert _status(studio, "/api/state") == 401
        assert _status(studio, "/api/state", Authorization="Bearer wrong") == 401
        assert _status(studio, "/api/state", Authorization="Bearer a-secret") == 200
        assert _status(studio, "/?token=wrong") == 401
        opened = studio.ask("/?token=a-secret")
        assert (opened.status, opened.headers["location"]) == (303, "/")
        cookie = opened.headers["set-cookie"].partition(";")[0]
        assert _status(studio, "/api/state", Cookie=cookie) == 200
        assert "HttpOnly" in opened.headers["set-cookie"]
        assert "SameSite=strict" in opened.headers["set-cookie"]
    with running_studio(tmp_path / "new", server=nano_server, address="0.0.0.0:0") as studio:
        assert len(studio.token) > 20, "a token is made where nobody has given one"


def test_a_studio_that_is_killed_leaves_no_process_and_goes_on_with_an_upload(
    nano_server: str, tmp_path: Path, clip: Path
) -> None:
    data = clip.read_bytes()
    half = len(data) // 2
    with running_studio(tmp_path / "work", clip, server=nano_server) as studio:
        video = studio.videos()[0]["id"]
        with studio.tab(video) as page:
            _begin(page)
            page.track(0)
        upload = studio.post("/api/uploads", name="again.mkv", size=len(data)).json["id"]
        assert studio.ask(f"/api/uploads/{upload}?offset=0", "PATCH", data[:half]).json == {"offset": half}
        assert studio.post(f"/api/videos/{video}/exports", format="matte", options={}).status == 200
        processes = [*wait_for(lambda: children(studio, "export_main") or None)]
        processes += wait_for(lambda: children(studio, "decoder_main") or None)
        studio.kill()
    wait_for(lambda: not any(Path(f"/proc/{process}/exe").exists() for process in processes))
    with running_studio(tmp_path / "work", server=nano_server) as studio:
        assert list((tmp_path / "work" / "exports").iterdir()) == []
        assert studio.ask(f"/api/uploads/{upload}").json["offset"] == half
        answer = studio.ask(f"/api/uploads/{upload}?offset={half}", "PATCH", data[half:])
        assert answer.json["video"]["name"] == "again.mkv"
        assert [one["frames"] for one in studio.videos()] == [LONG * NUM_FRAMES] * 2


def test_a_project_of_a_newer_studio_is_left_alone(nano_server: str, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "videos.jsonl").write_text('{"n":1,"do":"begin","version":2}\n')
    command = [sys.executable, "-m", "masklet_studio", "--project", str(tmp_path / "work"), "--no-browser"]
    done = subprocess.run(
        [*command, "--server", nano_server, "--address", "127.0.0.1:0"], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "was made by a newer studio; use that one" in done.stderr
    assert [one.name for one in (tmp_path / "work").iterdir() if one.name != "lock"] == ["videos.jsonl"]


def test_the_studio_runs_on_asyncios_own_loop(nano_server: str, tmp_path: Path) -> None:
    """Uvloop starts processes by fork(), beside which gRPC's threads die: a studio with a camera ended now and then."""
    with running_studio(tmp_path / "work", server=nano_server) as studio:
        assert "uvloop" not in Path(f"/proc/{studio.process.pid}/maps").read_text()
