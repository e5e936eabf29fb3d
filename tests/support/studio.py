"""A studio in a process of its own, and what a page does with it over HTTP and WebSocket."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from websockets.sync.client import connect

from masklet_studio.project.records import HEAD, MaskRecord
from tests.support.tab import ANSWER_SECONDS, Event, Tab

START_SECONDS = 90.0


@dataclass(frozen=True)
class Answer:
    """An answer of HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RunningStudio:
    """A studio's process."""

    def __init__(self, process: subprocess.Popen[str], url: str, project: Path, log: IO[bytes]) -> None:
        self.process = process
        self.project = project
        self.url = url.partition("?")[0].rstrip("/")
        self.token = url.partition("?token=")[2]
        self._log = log

    @property
    def host(self) -> str:
        return self.url.partition("//")[2]

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers or {})
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=ANSWER_SECONDS) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    def post(self, path: str, method: str = "POST", **fields: Any) -> Answer:
        return self.ask(path, method, json.dumps(fields).encode(), {"content-type": "application/json"})

    def videos(self) -> list[dict[str, Any]]:
        """The videos, once all of them are counted."""

        def counted() -> list[dict[str, Any]] | None:
            found: list[dict[str, Any]] = self.ask("/api/state").json["videos"]
            return found if all(video["ready"] or video["error"] for video in found) else None

        found: list[dict[str, Any]] = wait_for(counted)
        return found

    def upload(self, name: str, data: bytes) -> str:
        """Upload a video, and wait until its frames are counted; returns its id."""
        begun = self.post("/api/uploads", name=name, size=len(data)).json["id"]
        video: str = self.ask(f"/api/uploads/{begun}?offset=0", "PATCH", data).json["video"]["id"]
        self.videos()
        return video

    def remove(self, video: str) -> None:
        """Remove a video; waits until the studio has seen that its tabs are closed."""
        wait_for(lambda: self.ask(f"/api/videos/{video}", "DELETE").status == 200)

    @contextlib.contextmanager
    def tab(self, video: str, **headers: str) -> Iterator[Page]:
        address = f"ws://{self.host}/api/videos/{video}/session"
        with connect(address, max_size=None, additional_headers=headers, compression=None) as socket:
            page = Page(socket)
            yield page

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def memory(self) -> int:
        """Resident bytes of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Page(Tab):
    """What a tab of a video has heard: events, and the masks that they leave."""

    def __init__(self, socket: Any) -> None:
        self.masks: dict[tuple[int, int], MaskRecord] = {}
        self.records: list[MaskRecord] = []
        super().__init__(socket)

    def take_bytes(self, message: bytes) -> None:
        for record in records(message):
            self.records.append(record)
            held = self.masks.get((record.object_id, record.frame))
            if held is None or record.revision >= held.revision:
                self.masks[record.object_id, record.frame] = record

    def take_event(self, event: Event) -> None:
        if event["event"] == "state":
            self.state = event
            self.masks.clear()
        elif event["event"] == "invalid":
            for key in list(self.masks):
                if key[0] == event["object"] and event["from"] <= key[1] <= event["to"]:
                    del self.masks[key]

    def click(self, object_id: int, frame: int, *points: tuple[float, float, int]) -> MaskRecord:
        """Prompt an object, and return the mask that comes."""
        reply = self.do("prompt", object=object_id, frame=frame, points=[list(p) for p in points], box=None, mask=None)
        assert not reply["pending"], reply
        return self.masks[object_id, frame]

    def track(self, start: int, direction: str = "forward", objects: list[int] | None = None) -> None:
        """Track to the end."""
        self.do("track", direction=direction, objects=objects, **{"from": start})
        ended = self.wait("tracking", lambda event: not event["running"], 120)
        assert ended["error"] is None, ended


def records(message: bytes) -> Iterator[MaskRecord]:
    """The masks in a binary message."""
    at = 0
    while at < len(message):
        length = HEAD.size + HEAD.unpack_from(message, at)[-1]
        yield MaskRecord.unpack(message[at : at + length])
        at += length


def wait_for(look: Callable[[], Any], seconds: float = ANSWER_SECONDS) -> Any:
    """What a function returns, once that is neither None nor False nor 0."""
    end = time.monotonic() + seconds
    while (found := look()) is None or found is False or found == 0:
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.1)
    return found


def children(studio: RunningStudio, word: str) -> list[int]:
    """The processes that a studio has started and whose command line has this word."""
    found = []
    for task in Path(f"/proc/{studio.process.pid}/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            with contextlib.suppress(OSError):
                if word in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(pid)
    return found


@contextlib.contextmanager
def running_studio(
    project: Path, *videos: Path, server: str | None, options: tuple[str, ...] = (), address: str = "127.0.0.1:0"
) -> Iterator[RunningStudio]:
    """A studio in a process of its own, which is ended with the block."""
    command = [sys.executable, "-m", "masklet_studio", *map(str, videos), "--project", str(project)]
    command += ["--address", address, "--no-browser", *options, *(() if server is None else ("--server", server))]
    log_path = project.parent / f"{project.name}.log"
    with log_path.open("ab+") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        try:
            yield RunningStudio(process, _url(process, log_path), project, log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _url(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise AssertionError(f"the studio did not start: {log.read_text()}")
