"""What `benchmarks.studio` does in the page of a running studio, measured by the page's own clock."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENDING = 120
"""Seconds that a studio may take to end: one whose server is still being started waits for that."""
_TOOLS = """
const s = await import('/page/state/store.js');
const { opened } = await import('/page/state/opened.js');
const { openVideo } = await import('/page/state/videos.js');
const { view } = await import('/page/stage/stage.js');
const frameOf = () => new Promise((resolve) => requestAnimationFrame(resolve));
// A message that is posted while a picture is made arrives when that picture is on its way to the screen.
const painted = async () => {
  await frameOf();
  const { port1, port2 } = new MessageChannel();
  const seen = new Promise((resolve) => (port1.onmessage = () => resolve(performance.now())));
  port2.postMessage(0);
  await seen;
  port1.close();
  return performance.now();
};
const drawn = (frame) => s.frame.value === frame && !s.waiting.value && opened.value?.frames.pictures.has(frame);
const shape = (record) => opened.value.masks.shapes.get(record);
const until = async (look, seconds = 60) => {
  const end = performance.now() + 1000 * seconds;
  while (!look()) {
    if (performance.now() > end) throw new Error('it did not come: ' + look);
    await frameOf();
  }
};
"""
# A click: from the button's release to the picture with the mask that answers it.
_WATCH_CLICK = """
const object = () => s.objects.value[0]?.object ?? -1;
const before = opened.value.masks.get(s.frame.value, object())?.revision ?? -1;
window.clicked = new Promise((resolve, reject) => {
  addEventListener('pointerup', async () => {
    const begun = performance.now();
    try {
      await until(() => {
        const record = opened.value.masks.get(s.frame.value, object());
        return record && record.revision > before && shape(record);
      });
      resolve(await painted() - begun);
    } catch (error) { reject(error); }
  }, { once: true, capture: true });
});
"""
# A key: from its press to the picture of the next frame, with its masks.
_WATCH_STEP = """
const wanted = s.frame.value + step;
window.stepped = new Promise((resolve, reject) => {
  addEventListener('keydown', async () => {
    const begun = performance.now();
    try {
      await until(() => drawn(wanted));
      resolve(await painted() - begun);
    } catch (error) { reject(error); }
  }, { once: true, capture: true });
});
"""
_CACHED = "await until(() => opened.value.frames.ahead(s.frame.value) > 5); await frameOf();"
# From frame to frame, each as soon as the one before is there with all its masks. No outline is known beforehand.
_DRAW = """
const { masks } = opened.value;
// An object that is not seen on a frame has an empty mask there, of which nothing is drawn.
const known = (record) => record.area > 0 && s.objects.value.some(({ object }) => object === record.object);
const shown = (frame) => masks.at(frame).filter(known);
const complete = (frame) => drawn(frame) && masks.at(frame).length && shown(frame).every((one) => shape(one));
s.frame.value = first;
await until(() => complete(first));
masks.shapes.clear();
opened.redraw(); // the first frame is on the stage already
let count = 0;
const begun = performance.now();
for (let frame = first; frame < first + frames; frame++) {
  s.frame.value = frame;
  await until(() => complete(frame));
  count += shown(frame).length;
}
return [count, (await painted() - begun) / 1000];
"""
_SCRUB = """
for (let frame = 0; frame < frames; frame += step) {
  s.frame.value = frame;
  await until(() => drawn(frame));
}
return frames;
"""


def find_chromium() -> str | None:
    """The system's Chromium; MASKLET_CHROMIUM names another one."""
    return os.environ.get("MASKLET_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window.

    Raises:
        SystemExit: Playwright or Chromium is missing.
    """
    path = find_chromium()
    if path is None:
        raise SystemExit("needs Chromium: apt-get install chromium, or set MASKLET_CHROMIUM to its path")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise SystemExit("needs Playwright: pip install 'masklet[studio-tests]'") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def studio(clip: Path, project: Path, server: str | None = None) -> Iterator[tuple[str, float, int]]:
    """A studio in a process of its own: its address, when it was started (`time.time`), and its process id.

    Args:
        clip: The video.
        project: The folder of the project.
        server: The server; None: the studio starts one.
    """
    command = [sys.executable, "-m", "masklet_studio", str(clip), "--project", str(project), "--no-browser"]
    command += ["--address", "127.0.0.1:0", *(() if server is None else ("--server", server))]
    begun = time.time()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        found = next((re.search(r"http://\S+", line) for line in process.stdout if "http://" in line), None)
        if found is None:
            raise SystemExit("the studio did not start; run `masklet studio` to see why")
        yield found[0].rstrip("/"), begun, process.pid
    finally:
        process.terminate()
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Page:
    """A tab that shows a studio's only video.

    Args:
        tab: Playwright's page.
    """

    def __init__(self, tab: Any) -> None:
        self._tab = tab
        tab.set_default_timeout(120_000)

    def _run(self, script: str, **names: float) -> Any:
        given = ", ".join(names)
        return self._tab.evaluate(f"async ({{ {given} }}) => {{ {_TOOLS} {script} }}", names)

    def open(self, url: str) -> float:
        """Open the studio; when the first picture was drawn, in seconds since 1970."""
        self._tab.goto(url, wait_until="commit")
        self._tab.wait_for_selector(".stage-canvas")
        shown: float = self._run(
            "await until(() => opened.value && drawn(s.frame.value)); return performance.timeOrigin + await painted();"
        )
        return shown / 1000

    def ready(self) -> None:
        """Wait until the tab is connected, the frames are counted, and the server has loaded its model."""
        self._run(
            "await until(() => s.connected.value && s.frames.value > 0, 300);"
            "await until(() => s.engine.value.connected && !s.loading.value && s.server.value.model, 300);"
        )

    def rest(self, frame: int, seconds: float) -> None:
        """Look at a frame for a while."""
        self._run("s.frame.value = frame; await until(() => drawn(frame));", frame=frame)
        self._tab.wait_for_timeout(1000 * seconds)

    def click(self, x: float, y: float) -> float:
        """Click a place of the video; seconds until the mask that answers is seen."""
        self._run(_WATCH_CLICK)
        sx, sy = self._run("return view.toStage(x, y);", x=x, y=y)
        box = self._tab.locator(".stage-canvas").bounding_box()
        self._tab.mouse.click(box["x"] + sx, box["y"] + sy)
        took: float = self._tab.evaluate("window.clicked")
        self._run("await until(() => s.pending.value.size === 0);")
        return took / 1000

    def new_object(self) -> None:
        """Take the first object away, if there is one, and add another one."""
        self._run(
            "const { session } = opened.value;"
            "for (const one of [...s.objects.value]) await session.do('remove_object', { object: one.object });"
            "await session.do('add_object'); await until(() => s.objects.value.length === 1 && s.selected.value);"
        )

    def track(self, objects: list[list[float]], frames: int) -> None:
        """Prompt objects on frame 0, each at a place [x, y], and track them over the first frames."""
        script = """
        const { session } = opened.value;
        for (const one of [...s.objects.value]) await session.do('remove_object', { object: one.object });
        for (const [x, y] of places) {
          const { object } = await session.do('add_object');
          const points = [[x, y, 1]];
          await session.do('prompt', { object, frame: 0, points, box: null, mask: null });
        }
        await session.do('marks', { in: 0, out: frames - 1 });
        await session.do('track', { direction: 'forward', from: 0, objects: null });
        await until(() => !s.tracking.value.running && s.framesTracked.value >= frames, 600);
        """
        self._tab.evaluate(
            f"async ({{ places, frames }}) => {{ {_TOOLS} {script} }}", {"places": objects, "frames": frames}
        )

    def step(self, forward: bool) -> float:
        """Press the key for the next frame, or the one before, which the page has; seconds until it is seen."""
        self._run(_CACHED)
        self._run(_WATCH_STEP, step=1 if forward else -1)
        self._tab.keyboard.press("ArrowRight" if forward else "ArrowLeft")
        took: float = self._tab.evaluate("window.stepped")
        return took / 1000

    def draw(self, first: int, frames: int) -> tuple[int, float]:
        """Draw frames with their masks as fast as it goes: number of masks, and seconds."""
        count, seconds = self._run(_DRAW, first=first, frames=frames)
        return int(count), float(seconds)

    def scrub(self, frames: int, step: int) -> None:
        """Look at every so many-th frame."""
        self._run(_SCRUB, frames=frames, step=step)


def renderers(browser_parent: int) -> int:
    """Resident bytes of the processes in which pages of this process's browsers run.

    Args:
        browser_parent: The process whose browsers count.
    """
    total = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            is_renderer = entry.name.isdecimal() and b"--type=renderer" in (entry / "cmdline").read_bytes()
            if is_renderer and browser_parent in _ancestors(int(entry.name)):
                total += resident(int(entry.name))
    return total


def _ancestors(process: int) -> Iterator[int]:
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        yield process


def resident(process: int) -> int:
    """Resident bytes of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
