"""Makes the pictures of the studio: a recording of some twenty seconds, and three screenshots.

Run it from the root of the repository: `python -m docs.generate.studio_pictures`. It needs Chromium and the extras
`studio` and `studio-tests`. It opens the example clip in a real studio, clicks, tracks, corrects and exports. It writes
`docs/images/studio.webm` and `docs/images/studio-{start,track,review}.webp`.

Every picture of the recording is a screenshot that is shown for a tenth of a second, however long it took to make. So
the recording looks the same on a busy machine; its pace says nothing about the studio's.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from benchmarks._page import chromium, studio

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "examples" / "bunny.mp4"
IMAGES = ROOT / "docs" / "images"
SCREEN = (1280, 800)
# Of the screenshots: a video's card on the start page, and what there is to check, are whole.
TALL = (1280, 880)
RATE = 10
RABBIT, ROCK = (345.0, 400.0), (130.0, 450.0)
DARK = (470.0, 420.0)  # beside the rabbit, on frame 0
# A later frame, and what its mask has there that is not the rabbit.
CORRECTED, NOT_RABBIT = 60, (250.0, 370.0)
_SHOT = {"type": "jpeg", "quality": 95}

_POINTER = """() => {
  const pointer = document.createElement('div');
  pointer.id = 'recorded-pointer';
  const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="26" height="26" viewBox="0 0 26 26">' +
    '<path d="M4 2v18l5-4.5 3.5 7.5 3-1.4-3.5-7.3 6.7-.3z" fill="#fff" stroke="#000" stroke-width="1.5"/>' +
    '</svg>';
  pointer.innerHTML = svg;
  Object.assign(pointer.style, { position: 'fixed', left: '0', top: '0', zIndex: '99999', pointerEvents: 'none',
    filter: 'drop-shadow(0 1px 2px rgb(0 0 0 / 60%))' });
  const ring = document.createElement('div');
  Object.assign(ring.style, { position: 'absolute', left: '-14px', top: '-16px', width: '36px', height: '36px',
    borderRadius: '50%', border: '3px solid #fff', opacity: '0' });
  pointer.append(ring);
  // Above dialogs as well, which lie in the browser's top layer.
  pointer.popover = 'manual';
  Object.assign(pointer.style, { margin: '0', padding: '0', border: '0', background: 'none', overflow: 'visible' });
  document.body.append(pointer);
  pointer.showPopover();
  window.pointAt = (x, y, pressed) => {
    pointer.style.transform = `translate(${x - 4}px, ${y - 2}px)`;
    ring.style.opacity = pressed ? '0.9' : '0';
    pointer.hidePopover();
    pointer.showPopover();
  };
}"""


class Recorder:
    """A person at the page, and a camera before it.

    Args:
        page: Playwright's page.
    """

    def __init__(self, page: Any) -> None:
        self._page = page
        self._at = (640.0, 640.0)
        self.shots: list[bytes] = []
        page.evaluate(_POINTER)
        self._point()

    def _point(self, *, pressed: bool = False) -> None:
        self._page.evaluate("([x, y, pressed]) => window.pointAt(x, y, pressed)", [*self._at, pressed])

    def hold(self, pictures: int = 1) -> None:
        """Show what there is for so many pictures."""
        self.shots += [self._page.screenshot(**_SHOT)] * pictures

    def move(self, x: float, y: float, pictures: int = 7) -> None:
        """Move the pointer there, slower at both ends."""
        x0, y0 = self._at
        for step in range(1, pictures + 1):
            part = step / pictures
            eased = part * part * (3 - 2 * part)
            self._at = (x0 + (x - x0) * eased, y0 + (y - y0) * eased)
            self._page.mouse.move(*self._at)
            self._point()
            self.hold()

    def press(self, button: str = "left") -> None:
        """Click where the pointer is."""
        self._point(pressed=True)
        self.hold()
        self._page.mouse.click(*self._at, button=button)
        self._page.wait_for_timeout(60)
        self._point()

    def press_on(self, locator: Any) -> None:
        """Move to the middle of something, and click it."""
        box = locator.bounding_box()
        self.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.press()

    def click_video(self, x: float, y: float, button: str = "left") -> None:
        """Click a place of the video, and wait for its mask."""
        sx, sy = self._page.evaluate(
            "async ([x, y]) => (await import('/page/stage/stage.js')).view.toStage(x, y)", [x, y]
        )
        box = self._page.locator(".stage-canvas").bounding_box()
        self.move(box["x"] + sx, box["y"] + sy)
        self.press(button)
        until(self._page, "s.pending.value.size === 0")
        self._page.wait_for_timeout(250)

    def type(self, text: str) -> None:
        """Type letter by letter."""
        for letter in text:
            self._page.keyboard.type(letter)
            self.hold()

    def watch_tracking(self, every: int) -> None:
        """A picture for every so many frames that are tracked, until the end."""
        until(self._page, "s.tracking.value.running")
        last = -every
        while store(self._page, "s.tracking.value.running"):
            at = store(self._page, "s.tracking.value.frame ?? 0")
            if abs(at - last) >= every:
                last = at
                self.hold()
            else:
                self._page.wait_for_timeout(20)
        self._page.wait_for_timeout(400)
        self.hold()


def store(page: Any, expression: str) -> Any:
    """What an expression over the page's state gives; ``s`` is the module of its signals."""
    return page.evaluate(f"(async () => {{ const s = await import('/page/state/store.js'); return {expression}; }})()")


def on_screen(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a place of the video is on the screen."""
    sx, sy = page.evaluate("async ([x, y]) => (await import('/page/stage/stage.js')).view.toStage(x, y)", [x, y])
    box = page.locator(".stage-canvas").bounding_box()
    return box["x"] + sx, box["y"] + sy


def until(page: Any, expression: str, seconds: float = 120) -> None:
    """Wait until an expression over the page's state is true.

    Raises:
        SystemExit: It does not become true in time.
    """
    for _ in range(int(seconds * 50)):
        if store(page, expression):
            return
        page.wait_for_timeout(20)
    raise SystemExit(f"it did not come true: {expression}")


def record(page: Any) -> list[bytes]:
    """From the first click to the export, as JPEG pictures; takes the screenshots on the way."""
    until(page, "s.connected.value && s.frames.value > 0 && s.waiting.value === false")
    until(page, "s.engine.value.connected && !s.loading.value && Boolean(s.server.value?.model)")
    person = Recorder(page)
    person.hold(5)
    person.click_video(*RABBIT)
    person.hold(4)
    person.click_video(*DARK, button="right")
    person.hold(5)
    person.press_on(page.locator(".object-name").first)
    person.type("rabbit")
    page.keyboard.press("Enter")
    person.press_on(page.locator(".hint").get_by_role("button", name="Another object"))
    person.click_video(*ROCK)
    person.hold(4)
    person.press_on(page.locator(".object-name").nth(1))
    person.type("rock")
    page.keyboard.press("Enter")
    person.press_on(page.locator(".transport").get_by_role("button", name="Track forward", exact=True))
    person.watch_tracking(5)
    person.hold(4)
    page.locator("#frame-field").fill(str(CORRECTED))
    page.locator("#frame-field").press("Enter")
    until(page, f"s.frame.value === {CORRECTED} && !s.waiting.value")
    person.hold(3)
    person.press_on(page.locator(".object-name").first)
    page.keyboard.press("Escape")
    person.click_video(*NOT_RABBIT, button="right")
    person.hold(7)
    page.get_by_label("What is tracked").select_option("selected")
    person.press_on(page.locator(".transport").get_by_role("button", name="Track forward", exact=True))
    person.watch_tracking(6)
    person.hold(4)
    person.press_on(page.get_by_role("button", name="Export", exact=True))
    person.hold(6)
    person.press_on(page.get_by_role("button", name="Export COCO"))
    page.get_by_role("link", name="Download").wait_for()
    box = page.get_by_role("link", name="Download").bounding_box()
    person.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    person.hold(12)
    return person.shots


def write_recording(shots: list[bytes], path: Path) -> None:
    """Write pictures as a WebM file."""
    with av.open(str(path), "w", format="webm") as written:
        options = {"crf": "34", "b": "0", "deadline": "good", "cpu-used": "2", "row-mt": "1"}
        stream = written.add_stream("libvpx-vp9", rate=RATE, options=options)
        stream.width, stream.height = SCREEN
        stream.pix_fmt = "yuv420p"
        for index, shot in enumerate(shots):
            pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            written.mux(stream.encode(frame))
        written.mux(stream.encode())


def keep(page: Any, name: str) -> None:
    """Write a screenshot."""
    shot = page.screenshot(type="png")
    Image.open(io.BytesIO(shot)).convert("RGB").save(IMAGES / f"studio-{name}.webp", quality=88, method=6)


def pictures(page: Any, url: str) -> None:
    """The three screenshots, of a video on which nothing was done: the start page, a run, and the review."""
    page.goto(f"{url}/#/")  # an address that names no video: the only one is not opened by itself
    page.get_by_role("heading", name="Drop a video here").wait_for()
    until(page, "Boolean(s.server.value?.model)")
    page.wait_for_timeout(1500)
    keep(page, "start")
    page.locator(".card").first.click()
    until(page, "s.connected.value && s.frames.value > 0 && s.waiting.value === false")
    for name, (x, y) in (("rabbit", RABBIT), ("rock", ROCK)):
        page.keyboard.press("a")
        until(page, "s.selected.value !== null")
        page.wait_for_timeout(300)
        page.locator(".object-name").last.fill(name)
        page.keyboard.press("Enter")
        page.mouse.click(*on_screen(page, x, y))
        page.wait_for_timeout(200)
        until(page, "s.pending.value.size === 0")
    page.mouse.move(640, 735)  # beside the timeline, which would show where the pointer is
    page.keyboard.press("t")
    until(page, "s.framesTracked.value > 45")
    keep(page, "track")
    until(page, "!s.tracking.value.running")
    page.wait_for_timeout(2500)
    page.keyboard.press("n")
    page.wait_for_timeout(800)
    keep(page, "review")


def main() -> None:
    """Make all of them."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        options = {"viewport": {"width": SCREEN[0], "height": SCREEN[1]}, "color_scheme": "dark"}
        with studio(CLIP, Path(folder) / "recorded") as (url, _, _):
            page = browser.new_page(**options)
            page.goto(url)
            page.locator(".stage-canvas").wait_for()
            shots = record(page)
            page.close()
        write_recording(shots, IMAGES / "studio.webm")
        size = (IMAGES / "studio.webm").stat().st_size
        print(f"docs/images/studio.webm: {len(shots) / RATE:.1f} s, {size / 1000:.0f} kB")
        with studio(CLIP, Path(folder) / "pictures") as (url, _, _):
            page = browser.new_page(viewport={"width": TALL[0], "height": TALL[1]}, color_scheme="dark")
            pictures(page, url)
            page.close()


if __name__ == "__main__":
    main()
