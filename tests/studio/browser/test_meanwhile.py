"""What a person is in the middle of, while something else happens; and a clock that goes by the video's own times."""

from __future__ import annotations

from fractions import Fraction

import pytest

from tests.support import clips, e2e
from tests.support.e2e import center
from tests.support.studio import RunningStudio
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow


def test_what_is_typed_stays_while_another_tab_works(clip: str, tabs: list[Workplace]) -> None:
    one, other = tabs
    one.open(clip)
    other.open(clip)
    one.press("a")
    other.until("s.objects.value.length === 1")
    one.page.get_by_label("Name of object 1").fill("dog")
    one.page.get_by_label("Name of object 1").press("Enter")
    one.page.get_by_label("Class").fill("animal")
    other.until("s.objects.value[0].name === 'dog'")
    other.press("a")
    one.until("s.objects.value.length === 2")
    assert one.page.get_by_label("Class").input_value() == "animal"
    one.page.get_by_label("Class").press("Enter")
    one.until("s.objects.value[0].class === 'animal'")
    assert one.complaints == other.complaints == []


def test_a_frame_number_that_is_typed_stays_while_the_picture_moves(work: Workplace) -> None:
    field = work.page.locator("#frame-field")
    field.fill("1")
    work.store("(s.frame.value = 4)")
    field.press_sequentially("2")
    field.press("Enter")
    assert work.store("s.frame.value") == 12


def test_a_box_keeps_its_first_corner_while_the_picture_is_zoomed(work: Workplace) -> None:
    work.page.mouse.move(*work.place(40, 40))
    work.page.mouse.down()
    work.page.mouse.move(*work.place(80, 80), steps=4)
    before = work.store("s.zoom.value")
    work.page.mouse.wheel(0, -300)
    work.until(f"s.zoom.value > {before}")
    work.page.mouse.move(*work.place(90, 90), steps=4)
    work.page.mouse.up()
    work.settle()
    assert work.store("s.promptOf(s.selected.value, 0).box") == pytest.approx([40, 40, 90, 90], abs=1.5)


def test_a_click_while_the_model_is_loaded_is_told_so(work: Workplace) -> None:
    hint = work.page.locator(".hint")
    work.store("(s.loading.value = true)")
    work.page.get_by_text("loading the model").wait_for()
    work.store("(s.lanes.value = new Map())")
    work.click(*center(0))
    work.store("(s.lanes.value = new Map())")
    hint.get_by_text("Your click is kept").wait_for()
    hint.get_by_role("button", name="Another object").click()
    work.until("s.objects.value.length === 2")
    work.store("(s.loading.value = false)")


def test_the_clock_goes_by_the_times_of_the_frames(studio: RunningStudio, tabs: list[Workplace]) -> None:
    """A phone's video: its frames do not follow evenly, and it does not begin at 0."""
    pts = [100, 140, 640, 660, 1400]
    data = clips.make_clip(
        "matroska", "ffv1", size=(e2e.WIDTH, e2e.HEIGHT), pixel_format="bgr0", pictures=list(e2e.frames()[: len(pts)]),
        pts=pts, time_base=Fraction(1, 1000),
    )  # fmt: skip
    video = studio.upload("phone.mkv", data)
    tabs[0].open(f"{studio.url}/#/video/{video}")
    tabs[0].until(f"s.times.value.length === {len(pts)}")
    shown = []
    for frame in range(len(pts)):
        tabs[0].go(frame)
        shown.append(tabs[0].page.locator(".time").inner_text())
    assert shown == ["0:00.00", "0:00.04", "0:00.54", "0:00.56", "0:01.30"]
    assert tabs[0].complaints == []
    tabs[0].page.close()
    studio.remove(video)
