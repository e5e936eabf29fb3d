"""The backend as Label Studio asks it: over HTTP, with a real masklet server behind it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

import masklet
from masklet.cli import main
from masklet.integrations.label_studio import app as app_module
from masklet.integrations.label_studio.app import application
from masklet.integrations.label_studio.prediction import Labels, Predictor
from masklet.integrations.label_studio.videos import Videos
from tests.support.clips import make_clip
from tests.support.e2e import HEIGHT, NUM_FRAMES, WIDTH, box, frames

LABELS = """<View>
  <Labels name="videoLabels" toName="video"><Label value="rabbit"/><Label value="fox"/></Labels>
  <Video name="video" value="$clip" frameRate="25"/>
  <VideoRectangle name="box" toName="video"/>
</View>"""
NAMES = ("rabbit", "fox")
RATE = 25.0


@contextlib.contextmanager
def serving(predictor: Predictor, credentials: str = "") -> Iterator[str]:
    config = uvicorn.Config(application(predictor, credentials=credentials), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def ask(url: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    clip = make_clip("mp4", "libx264", size=(WIDTH, HEIGHT), pictures=list(frames()))
    (folder / "clip.mp4").write_bytes(clip)
    (folder.parent / "secret.mp4").write_bytes(clip)
    return folder


@pytest.fixture
def backend(client: masklet.Client, files: Path) -> Iterator[str]:
    with serving(Predictor(client, Videos(files=files))) as url:
        yield url


def key(blob: int, frame: int, **more: Any) -> dict[str, Any]:
    """A key frame that a person drew, by Label Studio's count."""
    x0, y0, x1, y1 = box(blob, frame - 1)
    percent = {"x": 100 * x0 / WIDTH, "y": 100 * y0 / HEIGHT, "width": 100 * (x1 - x0) / WIDTH,
               "height": 100 * (y1 - y0) / HEIGHT}  # fmt: skip
    return {"frame": frame, "time": (frame - 1) / RATE, "enabled": True, "rotation": 0, **percent, **more}


def region(blob: int, *keys: dict[str, Any], count: int = NUM_FRAMES, rate: float = RATE) -> dict[str, Any]:
    return {
        "id": f"object{blob}",
        "type": "videorectangle",
        "from_name": "box",
        "to_name": "video",
        "origin": "manual",
        "meta": {"text": ["mine"]},
        "value": {
            "framesCount": count,
            "duration": count / rate,
            "sequence": list(keys),
            "labels": ["rabbit", "fox"][blob:][:1],
        },
    }


def request(*regions: dict[str, Any], video: str = "/data/local-files/?d=clip.mp4", **more: Any) -> dict[str, Any]:
    return {
        "tasks": [{"id": 1, "data": {"clip": video}, **more}],
        "project": "1.1700000000",
        "label_config": LABELS,
        "params": {"login": None, "password": None, "context": {"result": list(regions)} if regions else None},
    }


def overlap(found: dict[str, float], blob: int, frame_index: int) -> float:
    """Intersection over union of a box in per cent with an object's true box."""
    x0, y0, x1, y1 = box(blob, frame_index)
    a0, b0 = found["x"] * WIDTH / 100, found["y"] * HEIGHT / 100
    a1, b1 = a0 + found["width"] * WIDTH / 100, b0 + found["height"] * HEIGHT / 100
    inside = max(0.0, min(x1, a1) - max(x0, a0)) * max(0.0, min(y1, b1) - max(y0, b0))
    return float(inside) / ((x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - inside)


def test_it_is_up_and_takes_a_projects_labels(backend: str) -> None:
    for path in ("/", "/health"):
        assert ask(backend + path) == (200, {"status": "UP", "model_class": "masklet"})
    setup = {"project": "1.17", "schema": LABELS, "hostname": "http://127.0.0.1:8080", "access_token": "x"}
    version = f"masklet {masklet.__version__}"
    assert ask(backend + "/setup", setup) == (200, {"model_version": version})
    assert ask(backend + "/versions") == (200, {"versions": [version]})
    for path in ("/webhook", "/train"):
        assert ask(backend + path, {"action": "ANNOTATION_CREATED"})[0] == 201


def test_boxes_of_many_objects_are_tracked(backend: str) -> None:
    drawn = [region(0, key(0, 1)), region(1, key(1, 4))]
    status, answer = ask(backend + "/predict", request(*drawn))
    assert status == 200
    (prediction,) = answer["results"]
    assert prediction["model_version"] == f"masklet {masklet.__version__}"
    assert 0.3 < prediction["score"] <= 1
    assert [one["id"] for one in prediction["result"]] == ["object0", "object1"]
    for blob, (one, first) in enumerate(zip(prediction["result"], (1, 4), strict=True)):
        assert (one["type"], one["from_name"], one["to_name"]) == ("videorectangle", "box", "video")
        assert one["meta"] == {"text": ["mine"]}
        assert one["value"]["labels"] == [NAMES[blob]]
        sequence = one["value"]["sequence"]
        assert [box["frame"] for box in sequence] == list(range(first, NUM_FRAMES + 1))
        assert sequence[0] == key(blob, first), "what was drawn stays"
        assert all(box["enabled"] for box in sequence)
        assert np.mean([overlap(found, blob, found["frame"] - 1) for found in sequence]) > 0.6
        for found in sequence:
            assert found["time"] == pytest.approx((found["frame"] - 1) / RATE, abs=1e-3)


@pytest.mark.slow
def test_a_box_drawn_later_corrects(backend: str, client: masklet.Client, files: Path) -> None:
    wrong = {**key(0, 1), "x": 0, "y": 0, "width": 5, "height": 5}
    _, answer = ask(backend + "/predict", request(region(0, wrong, key(0, 9))))
    sequence = answer["results"][0]["result"][0]["value"]["sequence"]
    assert sequence[0] == wrong
    assert sequence[8] == key(0, 9)
    prompts = [masklet.Prompt(box=(0, 0, 16, 12)), masklet.Prompt(box=box(0, 8), frame_index=8)]
    for frame in client.track(files / "clip.mp4", prompts):
        result = frame.objects[1]
        if frame.frame_index in (0, 8) or result.box is None:
            continue
        found = sequence[frame.frame_index]
        edges = (found["x"] * WIDTH / 100, found["y"] * HEIGHT / 100)
        assert edges == pytest.approx(result.box[:2], abs=1), frame.frame_index


@pytest.mark.slow
def test_frames_go_by_time_where_label_studio_counts_them_at_another_rate(backend: str) -> None:
    half = NUM_FRAMES // 2
    drawn = key(0, 1)
    _, answer = ask(backend + "/predict", request(region(0, drawn, count=half, rate=RATE / 2)))
    sequence = answer["results"][0]["result"][0]["value"]["sequence"]
    assert [box["frame"] for box in sequence] == list(range(1, len(sequence) + 1))
    assert len(sequence) in (half, half + 1)
    for found in sequence[:5]:
        assert overlap(found, 0, 2 * (found["frame"] - 1)) > 0.6


@pytest.mark.slow
def test_without_a_count_of_frames_they_go_by_number(backend: str) -> None:
    plain = region(0, key(0, 2))
    del plain["value"]["framesCount"], plain["value"]["duration"]
    _, answer = ask(backend + "/predict", request(plain))
    sequence = answer["results"][0]["result"][0]["value"]["sequence"]
    assert [box["frame"] for box in sequence] == list(range(2, NUM_FRAMES + 1))


@pytest.mark.slow
def test_an_object_that_is_lost_ends(files: Path, client: masklet.Client) -> None:
    """The object is cut out of the picture from frame 8 on."""
    pictures = [picture.copy() for picture in frames()]
    for index in range(7, NUM_FRAMES):
        pictures[index][:] = 90
    clip = make_clip("mp4", "libx264", size=(WIDTH, HEIGHT), pictures=pictures)
    (files / "lost.mp4").write_bytes(clip)
    with serving(Predictor(client, Videos(files=files))) as backend:
        _, answer = ask(backend + "/predict", request(region(0, key(0, 1)), video="/data/local-files/?d=lost.mp4"))
    sequence = answer["results"][0]["result"][0]["value"]["sequence"]
    assert sequence[-1]["frame"] < NUM_FRAMES
    assert sequence[-1]["enabled"] is False
    assert all(box["enabled"] for box in sequence[:-1])


def test_a_limit_of_frames_ends_the_boxes_there(files: Path, client: masklet.Client) -> None:
    with serving(Predictor(client, Videos(files=files), max_frames=3)) as backend:
        _, answer = ask(backend + "/predict", request(region(0, key(0, 2))))
    sequence = answer["results"][0]["result"][0]["value"]["sequence"]
    assert [box["frame"] for box in sequence] == [2, 3, 4, 5]
    assert [box["enabled"] for box in sequence] == [True, True, True, False]


@pytest.mark.slow
def test_without_a_context_the_boxes_of_the_task_are_tracked(backend: str) -> None:
    annotations = [{"result": []}, {"result": [{"type": "choices", "value": {}}, region(1, key(1, 1))]}]
    _, answer = ask(backend + "/predict", request(annotations=annotations))
    assert [one["id"] for one in answer["results"][0]["result"]] == ["object1"]
    _, answer = ask(backend + "/predict", request())
    assert answer["results"] == [{"result": [], "score": 0.0, "model_version": f"masklet {masklet.__version__}"}]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "body: is not JSON"),
        ([], 400, "body: must be a JSON object"),
        ({"tasks": 3}, 400, "tasks: must be a list of tasks"),
        ({**request(region(0, key(0, 1))), "label_config": "<View"}, 400, "label_config: is not XML"),
        ({**request(region(0, key(0, 1))), "label_config": "<View/>"}, 400, "label_config: needs <Video"),
        ({**request(region(0, key(0, 1))), "label_config": "<!DOCTYPE a><View/>"}, 400, "declares entities"),
        (request({**region(0), "value": {"sequence": []}}), 400, r"result[0].value: must have a sequence"),
        (request(region(0, key(0, 1, width=0))), 400, "a box without area on frame 1"),
        (request(region(0, key(0, 1, x="left"))), 400, "must have a sequence of boxes"),
        (request(region(0, key(0, 1)), video=""), 400, "data.clip: must be the address of a video"),
        (request(region(0, key(0, 1)), video="/data/local-files/?d=no.mp4"), 404, "there is no file no.mp4"),
        (request(region(0, key(0, 1)), video="/data/local-files/?d=../secret.mp4"), 400, "not in the folder of"),
        (request(region(0, key(0, 1)), video="/data/upload/1/clip.mp4"), 400, "give its address with --label-studio"),
        (request(region(0, key(0, 1)), video="http://169.254.169.254/x"), 400, "169.254.169.254 may not be read"),
        (request(region(0, key(0, 1)), video="file:///etc/passwd"), 400, "may not be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(backend: str, body: object, status: int, message: str) -> None:
    found, answer = ask(backend + "/predict", body)
    assert (found, message in answer["error"]) == (status, True), answer
    assert ask(backend + "/health")[0] == 200


def test_a_request_that_is_too_long_is_refused(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "MAX_BODY_BYTES", 1000)
    status, answer = ask(backend + "/predict", request(region(0, *(key(0, i) for i in range(1, 18)))))
    assert status == 400
    assert "body: has more than 1000 bytes" in answer["error"]


def test_credentials_are_asked_for(client: masklet.Client, files: Path) -> None:
    with serving(Predictor(client, Videos(files=files)), "label:studio") as backend:
        assert ask(backend + "/health")[0] == 401
        wrong = {"Authorization": "Basic " + base64.b64encode(b"label:wrong").decode()}
        assert ask(backend + "/predict", request(), wrong)[0] == 401
        right = {"Authorization": "Basic " + base64.b64encode(b"label:studio").decode()}
        assert ask(backend + "/health", headers=right)[0] == 200


class Host(SimpleHTTPRequestHandler):
    """Label Studio's own host: it gives files to those who have its token, and redirects to a bucket."""

    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Authorization"]))
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", "http://" + self.path.removeprefix("/to/"))
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(files: Path) -> Iterator[Callable[[], tuple[str, list[tuple[str, str | None]]]]]:
    with contextlib.ExitStack() as stack:

        def start() -> tuple[str, list[tuple[str, str | None]]]:
            seen: list[tuple[str, str | None]] = []
            handler = type("Handler", (Host,), {"seen": seen})
            running = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(files))))
            thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(running.shutdown)
            return f"127.0.0.1:{running.server_port}", seen

        yield start


@pytest.mark.slow
def test_uploaded_videos_are_fetched_with_the_token(
    client: masklet.Client, host: Callable[[], tuple[str, list[tuple[str, str | None]]]]
) -> None:
    (studio, at_studio), (bucket, at_bucket), (other, at_other) = host(), host(), host()
    videos = Videos(f"http://{studio}", "secret", hosts=(bucket,))
    with serving(Predictor(client, videos, max_frames=1)) as backend:
        for video in ("/clip.mp4", f"http://{studio}/clip.mp4", f"http://{bucket}/clip.mp4", f"/to/{bucket}/clip.mp4"):
            status, answer = ask(backend + "/predict", request(region(0, key(0, 1)), video=video))
            assert status == 200, answer
            assert len(answer["results"][0]["result"][0]["value"]["sequence"]) == 2
        for video in (f"http://{other}/clip.mp4", f"/to/{other}/clip.mp4"):
            status, answer = ask(backend + "/predict", request(region(0, key(0, 1)), video=video))
            assert (status, "may not be read" in answer["error"]) == (400, True)
        status, answer = ask(backend + "/predict", request(region(0, key(0, 1)), video="/none.mp4"))
        assert (status, "HTTP status 404" in answer["error"]) == (404, True)
    assert {token for _, token in at_studio} == {"Token secret"}
    assert at_bucket
    assert {token for _, token in at_bucket} == {None}, "the token is Label Studio's alone"
    assert at_other == []


def test_labels_name_the_tags() -> None:
    assert Labels.of(LABELS) == Labels("box", "video", "clip")


def test_answers_are_valid_to_label_studios_own_package(backend: str) -> None:
    interface = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="label-studio-sdk is not installed: pip install label-studio-sdk"
    )
    from label_studio_sdk.label_interface.objects import PredictionValue

    _, answer = ask(backend + "/predict", request(region(0, key(0, 1)), region(1, key(1, 4))))
    (prediction,) = answer["results"]
    value = PredictionValue(**prediction)
    assert interface.LabelInterface(LABELS).validate_prediction(value.model_dump())


def test_the_command_runs_it(nano_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as left:
            main(["label-studio", "--port", str(port), "--server", nano_server])
        assert left.value.code == 1
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["label-studio", "--port", "0", "--files", str(tmp_path / "none"), "--server", nano_server])
    assert left.value.code == 2


@pytest.mark.slow
def test_the_command_answers_until_it_is_ended(nano_server: str, files: Path) -> None:
    program = [sys.executable, "-c", "import masklet.cli; masklet.cli.main()", "label-studio", "--port", "0"]
    program += ["--server", nano_server, "--files", str(files)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://[\d.:]+", process.stdout.readline())
            assert found is not None
            status, answer = ask(found[0] + "/predict", request(region(0, key(0, 1))))
            assert status == 200
            assert len(answer["results"][0]["result"][0]["value"]["sequence"]) == NUM_FRAMES
        finally:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
