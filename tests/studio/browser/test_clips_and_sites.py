"""Large and long clips in a browser, and pages of other sites that try to reach the studio through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import browser, clips, e2e, synthetic
from tests.support.studio import RunningStudio
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow


def test_a_page_of_another_site_can_do_nothing(studio: RunningStudio, chromium: Any, tmp_path: Path) -> None:
    """Somebody was lured to it: it neither reads the studio's answers, nor changes anything, nor hears masks."""
    video = studio.upload("clip.mkv", e2e.lossless())
    (tmp_path / "evil.html").write_text("<!doctype html><title>evil</title>")
    with browser.served_files(tmp_path) as evil:
        page = chromium.new_page()
        page.goto(f"{evil}/evil.html")
        tried = page.evaluate(
            """async ([studio, host, video]) => {
                const tried = (url, options) => fetch(url, options).then((one) => one.type, () => 'refused');
                const socket = new WebSocket(`ws://${host}/api/videos/${video}/session`);
                const heard = new Promise((resolve) => {
                    socket.onmessage = () => resolve('heard');
                    socket.onclose = () => resolve('closed');
                });
                const loaded = (src) => new Promise((resolve) => {
                    const image = new Image();
                    image.onload = () => resolve('shown');
                    image.onerror = () => resolve('refused');
                    image.src = src;
                });
                return {
                    read: await tried(`${studio}/api/state`),
                    remove: await tried(`${studio}/api/videos/${video}`, { method: 'DELETE' }),
                    upload: await tried(`${studio}/api/uploads`,
                        { method: 'POST', mode: 'no-cors', body: '{"name": "a.mp4", "size": 5}' }),
                    socket: await heard,
                    picture: await loaded(`${studio}/videos/${video}/frames/0?width=320`),
                };
            }""",
            [studio.url, studio.host, video],
        )
        page.close()
    assert tried == {
        "read": "refused",
        "remove": "refused",
        "upload": "refused",
        "socket": "closed",
        "picture": "refused",
    }
    assert video in [one["id"] for one in studio.videos()]
    assert list((studio.project / "uploads").iterdir()) == []
    studio.remove(video)


def test_a_4k_clip_is_clicked_and_tracked(studio: RunningStudio, tabs: list[Workplace]) -> None:
    pictures = [np.repeat(np.repeat(one, 9, axis=0), 12, axis=1) for one in synthetic.clip(4, 240, 320)]
    video = studio.upload("4k.mp4", clips.make_clip("mp4", "libx264", size=(3840, 2160), pictures=pictures))
    tab = tabs[0]
    tab.open(f"{studio.url}/#/video/{video}")
    tab.click(*synthetic.BLOBS[0].center(0, 2160, 3840))
    true_area = int(synthetic.BLOBS[0].mask(0, 2160, 3840).sum())
    assert 0.6 * true_area < tab.area() < 1.5 * true_area
    tab.track("t")
    tab.has_runs([[0, 3]])
    tab.press("End")
    tab.until("s.frame.value === 3 && !s.waiting.value")
    assert tab.area() > 0.5 * true_area
    assert tab.complaints == []


def test_a_long_clip_is_scrubbed_and_tracked_at_its_end(studio: RunningStudio, tabs: list[Workplace]) -> None:
    last = 2999
    pictures = list(synthetic.clip(30, 48, 64)) * 100
    options = {"preset": "ultrafast"}
    video = studio.upload(
        "long.mp4", clips.make_clip("mp4", "libx264", size=(64, 48), gop=250, codec_options=options, pictures=pictures)
    )
    tab = tabs[0]
    tab.open(f"{studio.url}/#/video/{video}")
    for frame in (1500, 20, 2750, last - 10):
        tab.go(frame)
    tab.click(*synthetic.BLOBS[0].center((last - 10) % 30, 48, 64))
    assert tab.area() > 0
    tab.track("t")
    tab.has_runs([[last - 10, last]])
    assert tab.complaints == []


def test_what_is_there_of_a_damaged_clip_can_be_worked_on(studio: RunningStudio, tabs: list[Workplace]) -> None:
    """A download that broke off: the studio says what is wrong with it, and shows the frames that there are."""
    whole = clips.make_clip("matroska", "libx264", size=(e2e.WIDTH, e2e.HEIGHT), gop=1, pictures=list(e2e.frames()))
    video = studio.upload("cut.mkv", whole[: len(whole) * 2 // 3])
    told = next(one for one in studio.videos() if one["id"] == video)
    assert told["ready"]
    assert 3 < told["frames"] < e2e.NUM_FRAMES
    studio.upload("clip.mkv", e2e.lossless())  # of several videos, none is opened by itself
    tab = tabs[0]
    tab.page.goto(studio.url)
    tab.page.get_by_role("button", name="cut.mkv").first.click()
    tab.wait_for_video()
    tab.click(*e2e.center(0))
    assert tab.area() > 0
