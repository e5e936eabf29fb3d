"""A person at the studio's page: clicks at places of the video, presses keys, and looks."""

from __future__ import annotations

import io
import re
import time
from typing import Any

from PIL import Image

SECONDS = 30.0  # that a page may take on a busy machine


class Workplace:
    """The page of one tab.

    Attributes:
        page: Playwright's page.
        complaints: What the browser complained of: errors of scripts, and what the content security policy refused.
        asked: The addresses of all requests.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        page.set_default_timeout(1000 * SECONDS)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)
        page.on("request", lambda request: self.asked.append(request.url))

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def open(self, url: str) -> None:
        """Open the studio, and wait until its only video, or the one that is named, can be clicked."""
        self.page.goto(url)
        self.wait_for_video()

    def wait_for_video(self) -> None:
        self.page.locator(".stage-canvas").wait_for()
        self.page.get_by_text("Saved").wait_for()
        self.until("s.waiting.value === false && s.frames.value > 0")

    def store(self, expression: str) -> Any:
        """What an expression over the page's state gives; ``s`` is the module of its signals."""
        return self.page.evaluate(
            f"(async () => {{ const s = await import('/page/state/store.js'); return {expression}; }})()"
        )

    def until(self, expression: str) -> None:
        """Wait until an expression over the page's state is true."""
        end = time.monotonic() + SECONDS
        while not self.store(expression):
            assert time.monotonic() < end, f"it did not come true: {expression}"
            self.page.wait_for_timeout(20)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a place of the video lies on the screen."""
        sx, sy = self.page.evaluate(
            "async ([x, y]) => (await import('/page/stage/stage.js')).view.toStage(x, y)", [x, y]
        )
        box = self.page.locator(".stage-canvas").bounding_box()
        return box["x"] + sx, box["y"] + sy

    def click(self, x: float, y: float, button: str = "left") -> None:
        """Click a place of the video, and wait for the answer."""
        self.page.mouse.click(*self.place(x, y), button=button)
        self.settle()

    def drag(self, *points: tuple[float, float]) -> None:
        """Drag along places of the video, and wait for the answer."""
        first, *others = [self.place(*point) for point in points]
        self.page.mouse.move(*first)
        self.page.mouse.down()
        for point in others:
            self.page.mouse.move(*point, steps=5)
        self.page.mouse.up()
        self.settle()

    def settle(self) -> None:
        """Until every prompt was answered."""
        self.page.wait_for_timeout(50)
        self.until("s.pending.value.size === 0")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def do(self, name: str) -> None:
        """Press a button by its name."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def go(self, frame: int) -> None:
        """Type a frame's number."""
        field = self.page.locator("#frame-field")
        field.fill(str(frame))
        field.press("Enter")
        self.until(f"s.frame.value === {frame} && !s.waiting.value")

    def track(self, *keys: str) -> None:
        """Track, and wait for the end."""
        self.press(*keys)
        self.page.get_by_role("button", name="Stop").wait_for()
        self.wait_tracked()

    def wait_tracked(self) -> None:
        self.page.get_by_role("button", name="Stop").wait_for(state="detached", timeout=3000 * SECONDS)

    def names(self) -> list[str]:
        """The names of the objects in the list, as they are read."""
        found: list[str] = self.page.locator(".object-name").evaluate_all(
            "all => all.map((one) => one.value || one.placeholder)"
        )
        return found

    def runs(self, number: int = 1) -> list[list[int]]:
        """The first and the last frame of each run of masks of the n-th object."""
        found: list[list[int]] = self.store(
            f"(s.lanes.value.get(s.objects.value[{number - 1}]?.object)?.runs ?? []).map(([from, to]) => [from, to])"
        )
        merged: list[list[int]] = []
        for first, last in found:
            if merged and merged[-1][1] == first - 1:
                merged[-1][1] = last
            else:
                merged.append([first, last])
        return merged

    def has_runs(self, runs: list[list[int]], number: int = 1) -> None:
        """The n-th object's masks lie on these frames; lanes come a moment after the masks."""
        end = time.monotonic() + 3
        while self.runs(number) != runs and time.monotonic() < end:
            self.page.wait_for_timeout(50)
        assert self.runs(number) == runs

    def area(self, number: int = 1) -> int:
        """Pixels of the n-th object's mask on the frame that is shown, 0 where it has none."""
        found: int = self.page.evaluate(
            """async (number) => {
                const s = await import('/page/state/store.js');
                const { opened } = await import('/page/state/opened.js');
                const { readCounts } = await import('/page/masks/rle.js');
                const { masks } = opened.value;
                const object = s.objects.value[number - 1]?.object;
                masks.at(s.frame.value);
                while ([...masks.chunks.values()].includes('asked') || masks.stale.size)
                    await new Promise((resolve) => setTimeout(resolve, 20));
                const record = masks.get(s.frame.value, object);
                return record ? readCounts(record.counts).reduce((sum, run, i) => sum + (i % 2 ? run : 0), 0) : 0;
            }""",
            number,
        )
        return found

    def colour_at(self, x: float, y: float) -> tuple[int, int, int]:
        """The colour that is seen at a place of the video."""
        self.page.mouse.move(2, 2)
        self.page.wait_for_timeout(150)
        sx, sy = self.place(x, y)
        shot = self.page.screenshot(clip={"x": int(sx), "y": int(sy), "width": 1, "height": 1})
        red, green, blue = Image.open(io.BytesIO(shot)).convert("RGB").getpixel((0, 0))  # type: ignore[misc]
        return red, green, blue

    def hosts(self) -> set[str]:
        """The hosts that the page asked anything of."""
        return {found[1] for url in self.asked if (found := re.match(r"\w+://([^/]+)", url))}


class LiveWorkplace(Workplace):
    """A person who looks at a live video."""

    def wait_for_live(self) -> None:
        """Until pictures come, and can be clicked."""
        self.page.locator(".stage-canvas").wait_for()
        self.until(
            "s.status.value.state === 'running' && s.status.value.server && s.frame.value > 0 && !s.waiting.value"
        )

    def wait_for_masks(self, count: int) -> None:
        """Until the picture that is drawn has so many masks that are not empty."""
        expression = (
            "(async () => { const a = await import('/page/state/opened.js'); "
            "const s = await import('/page/state/store.js'); "
            "return a.opened.value.masks.at(s.frame.value).filter((one) => one.area > 0).length; })()"
        )
        end = time.monotonic() + SECONDS
        while (found := self.page.evaluate(expression)) != count:
            assert time.monotonic() < end, f"there are {found} masks, not {count}"
            self.page.wait_for_timeout(50)
