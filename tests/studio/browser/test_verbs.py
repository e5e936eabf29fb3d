"""Each verb of the page, by the mouse and by the keyboard, and what it changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.e2e import HEIGHT, NUM_FRAMES, WIDTH, box, center, truth
from tests.support.studio import RunningStudio
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow
LAST = NUM_FRAMES - 1
BUNNY = Path(__file__).parents[3] / "examples" / "bunny.mp4"


def size(blob: int, frame: int = 0) -> int:
    return int(truth(blob, frame).sum())


def test_points_boxes_and_their_undoing(work: Workplace) -> None:
    x, y = center(0)
    work.click(x, y)
    first = work.area()
    assert 0.6 * size(0) < first < 1.5 * size(0)
    work.click(x + 8, y, button="right")
    assert work.store("[...s.prompts.value.values()][0].points.map((point) => point[2])") == [1, 0]
    work.click(x + 8, y)  # a click on a point takes it away
    assert work.store("[...s.prompts.value.values()][0].points.length") == 1
    work.press("x")
    work.settle()
    work.until("[...s.prompts.value.values()].every((one) => !one.points.length)")
    left, top, right, bottom = box(1)
    work.press("a")
    work.until("s.objects.value.length === 2")
    work.drag((left, top), (right, bottom))
    assert 0.6 * size(1) < work.area(2) < 1.5 * size(1)
    found = work.store("s.promptOf(s.selected.value, 0).box")
    assert found == pytest.approx([left, top, right, bottom], abs=1)
    work.press("Control+z")
    work.until("!s.promptOf(s.objects.value[1]?.object, 0)?.box")
    work.press("Control+Shift+Z")
    work.until("!!s.promptOf(s.objects.value[1]?.object, 0)?.box")
    assert 0.6 * size(1) < work.area(2) < 1.5 * size(1)


def test_a_click_right_after_adding_belongs_to_the_new_object(work: Workplace) -> None:
    work.click(*center(0))
    work.press("a")
    work.page.mouse.click(*work.place(*center(1)))
    work.until("s.objects.value.length === 2")
    work.settle()
    assert work.store("s.promptOf(s.objects.value[0].object, 0).points.length") == 1
    assert work.store("s.promptOf(s.objects.value[1].object, 0).points.length") == 1


def test_brush_and_eraser_change_the_mask_itself(work: Workplace) -> None:
    work.press("p")
    work.store("(s.brush.value = 10)")
    work.drag((100, 60), (200, 60))
    painted = work.area()
    # A line of 100 pixels, 20 wide, with a round end at each side.
    assert painted == pytest.approx(100 * 20 + 3.14 * 100, rel=0.04)
    work.press("e")
    work.drag((150, 30), (150, 90))
    assert work.area() == pytest.approx(painted - 20 * 20, rel=0.04)
    work.until("[...s.prompts.value.values()].some((one) => one.has_mask)")
    work.press("Control+z")
    work.until("s.history.value.can_redo")
    assert work.area() == painted


def test_objects_have_names_classes_and_colours(work: Workplace) -> None:
    work.do("Add")
    work.press("a")
    work.until("s.objects.value.length === 2")
    assert work.names() == ["Object 1", "Object 2"]
    work.page.get_by_label("Name of object 2").fill("dog")
    work.page.get_by_label("Name of object 2").press("Enter")
    work.page.get_by_label("Class").fill("animal")
    work.page.get_by_label("Class").press("Enter")
    work.page.get_by_label("Colour of dog").fill("#ff0000")
    work.until("s.objects.value[1].name === 'dog' && s.objects.value[1].class === 'animal'")
    work.until("s.objects.value[1].colour === '#ff0000'")
    work.press("1")
    assert work.store("s.selected.value === s.objects.value[0].object")
    work.press("ArrowDown")
    assert work.store("s.selected.value === s.objects.value[1].object")
    work.press("Shift+Delete")
    work.until("s.objects.value.length === 1")
    work.press("Control+z")
    work.until("s.objects.value.length === 2 && s.objects.value[1].name === 'dog'")


def test_tracking_forward_backward_both_and_between_marks(work: Workplace) -> None:
    work.go(9)
    work.click(*center(0, 9))
    work.track("t")
    work.has_runs([[9, LAST]])
    work.track("Shift+T")
    work.has_runs([[0, LAST]])
    work.press("a")
    work.until("s.objects.value.length === 2")
    work.click(*center(1, 9))
    work.go(5)
    work.press("i")
    work.go(12)
    work.press("o")
    work.until("s.marks.value.in === 5 && s.marks.value.out === 12")
    work.go(9)
    work.page.get_by_label("What is tracked").select_option("selected")
    work.track("y")
    work.has_runs([[5, 12]], 2)
    work.has_runs([[0, LAST]], 1)  # the other object is left as it was
    work.press("u")
    work.until("s.marks.value.in === null && s.marks.value.out === null")


def test_the_picture_goes_along_with_tracking_until_somebody_moves_it(work: Workplace) -> None:
    work.page.evaluate(
        "(async () => { const s = await import('/page/state/store.js'); const ui = await import('/page/ui.js');"
        " window.seen = []; ui.effect(() => { window.seen.push(s.frame.value); }); })()"
    )
    work.go(2)
    work.click(*center(0, 2))
    work.track("t")
    seen = work.page.evaluate("window.seen")
    assert max(seen) >= LAST - 1
    assert seen == [0, *range(2, 3), *sorted(set(seen[2:-1])), 2], "forward, without a way back but the last one"
    assert work.store("s.frame.value") == 2, "what is done next begins where the run began"
    work.press("f")
    work.until("!s.follow.value")
    work.page.evaluate("window.seen = []")
    work.track("t")
    assert work.page.evaluate("window.seen") == []
    work.press("f")
    work.until("s.follow.value")


def test_a_correction_tracks_that_object_on(work: Workplace) -> None:
    work.click(*center(0))
    work.press("a")
    work.until("s.objects.value.length === 2")
    work.click(*center(1))
    work.track("t")
    work.go(12)
    other = work.area(1)
    before = work.area(2)
    work.go(8)
    work.click(*center(1, 8))
    work.page.get_by_role("button", name="Track it on from here").click()
    work.wait_tracked()
    work.until("s.lanes.value.get(s.objects.value[1].object).corrections.includes(8)")
    work.go(8)
    work.page.get_by_text("is corrected on this frame").wait_for(state="detached")
    work.go(12)
    assert work.area(1) == other
    assert before > 0
    assert 0.6 * size(1, 12) < work.area(2) < 1.5 * size(1, 12)


def test_masks_are_deleted_copied_and_exchanged(work: Workplace) -> None:
    work.click(*center(0))
    work.press("a")
    work.until("s.objects.value.length === 2")
    work.click(*center(1))
    work.track("t")
    work.press("1")
    work.go(6)
    work.press("Delete")
    work.until("s.history.value.can_undo")
    assert work.area(1) == 0
    work.until("s.lanes.value.get(s.objects.value[0].object).runs.length > 1")
    work.go(5)
    fifth = work.area(1)
    work.press("c")
    work.until("s.frame.value === 6")
    assert work.area(1) == fifth
    work.go(10)
    one, two = work.area(1), work.area(2)
    work.page.get_by_label("Exchange Object 1 with").select_option(label="Object 2")
    work.until("s.history.value.can_undo")
    work.page.wait_for_timeout(500)
    assert (work.area(1), work.area(2)) == (two, one)
    work.go(4)
    work.do("Delete masks from here on")
    work.page.wait_for_timeout(500)
    work.has_runs([[0, 3]], 1)
    work.has_runs([[0, LAST]], 2)
    work.press("Control+z")
    work.until("s.lanes.value.get(s.objects.value[0].object).runs.at(-1)[1] > 4")
    work.has_runs([[0, LAST]], 1)


@pytest.fixture
def long_clip(studio: RunningStudio) -> Iterator[str]:
    """The address of a clip that takes a while to track."""
    video = studio.upload("long.mp4", BUNNY.read_bytes())
    yield f"{studio.url}/#/video/{video}"
    studio.remove(video)


def test_tracking_is_stopped(long_clip: str, tabs: list[Workplace]) -> None:
    work = tabs[0]
    work.open(long_clip)
    work.click(640, 360)
    work.press("t")
    work.until("s.framesTracked.value > 3")
    work.press("Escape")
    work.wait_tracked()
    work.page.wait_for_timeout(500)
    assert 3 < work.store("s.framesTracked.value") < work.store("s.frames.value")
    assert work.store("s.problems.value") == {}


def test_the_next_doubtful_frame(work: Workplace) -> None:
    work.click(*center(0))
    work.track("t")
    work.page.wait_for_timeout(1200)
    doubts = work.store("s.review.value.map(({ frame }) => frame)")
    work.press("n")
    work.page.locator(".hint.told").wait_for()
    if doubts:
        assert work.store("s.frame.value") in doubts
    else:
        assert "No frame needs a look" in work.page.locator(".hint.told").inner_text()


def test_masks_are_seen_in_each_style(work: Workplace) -> None:
    x, y = center(0)
    bare = work.colour_at(x, y)
    work.click(x, y)
    work.press("x")  # the point itself would be seen at its place
    work.press("Control+z")
    work.settle()
    inside, outside = (x + 12, y), (WIDTH - 4, HEIGHT - 4)
    plain_outside = work.colour_at(*outside)
    filled = work.colour_at(*inside)
    work.press("s")
    plain_inside = work.colour_at(*inside)
    assert filled != plain_inside
    work.press("s", "m")  # outline: the inside is as it was
    assert work.colour_at(*inside) == plain_inside
    work.press("m")  # cut-out: the outside is dimmed
    assert work.colour_at(*inside) == plain_inside
    assert sum(work.colour_at(*outside)) < sum(plain_outside)
    work.press("m")  # matte
    assert work.colour_at(*inside) == (255, 255, 255)
    assert work.colour_at(*outside) == (0, 0, 0)
    assert bare is not None


def test_moving_zooming_and_playing(work: Workplace) -> None:
    work.press("ArrowRight", "Shift+ArrowRight")
    work.until("s.frame.value === 11")
    work.press("End")
    work.until(f"s.frame.value === {LAST}")
    work.press("ArrowRight", "Home", "ArrowLeft")
    work.until("s.frame.value === 0")
    fitted = work.store("s.zoom.value")
    x, y = (round(part) for part in work.place(100, 100))
    under = work.page.evaluate(
        """async ([x, y]) => {
            const { left, top } = document.querySelector('.stage-canvas').getBoundingClientRect();
            return (await import('/page/stage/stage.js')).view.toVideo(x - left, y - top);
        }""",
        [x, y],
    )
    work.page.mouse.move(x, y)
    for _ in range(12):
        work.page.mouse.wheel(0, -400)
    work.until("s.zoom.value === 64")
    assert work.place(*under) == pytest.approx((x, y), abs=1), "what is under the pointer stays there"
    work.press("h")
    work.page.mouse.down()
    work.page.mouse.move(x + 30, y - 20, steps=3)
    work.page.mouse.up()
    assert work.place(*under) == pytest.approx((x + 30, y - 20), abs=1)
    work.press("0")
    work.until(f"s.zoom.value === {fitted}")
    work.press(" ")
    work.until("s.playing.value")
    work.until(f"!s.playing.value && s.frame.value === {LAST}")


def test_the_timeline_moves_the_playhead(work: Workplace) -> None:
    line = work.page.get_by_role("slider", name="Timeline")
    where = line.bounding_box()
    work.page.mouse.click(where["x"] + where["width"] - 14, where["y"] + 12)
    work.until(f"s.frame.value === {LAST}")
    assert line.get_attribute("aria-valuenow") == str(LAST)
    line.focus()
    work.press("ArrowLeft")
    work.until(f"s.frame.value === {LAST - 1}")


def test_the_sheet_of_keys_and_the_switch_of_colours(work: Workplace) -> None:
    work.press("?")
    sheet = work.page.get_by_role("dialog", name="Keys")
    assert "Next doubtful frame" in sheet.inner_text()
    work.press("Escape")
    sheet.wait_for(state="detached")
    back = "getComputedStyle(document.body).backgroundColor"
    dark = work.page.evaluate(back)
    work.do("Colours: as the system has them")
    light = work.page.evaluate(back)
    assert dark != light
    work.page.reload()
    work.wait_for_video()
    assert work.page.evaluate(back) == light, "the choice is kept"


def test_every_control_has_a_name(work: Workplace) -> None:
    work.click(*center(0))
    work.press("p", "Control+e")
    nameless = work.page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, a, canvas, progress')]
            .filter((one) => !(one.getAttribute('aria-label') || one.innerText?.trim() || one.labels?.length))
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []
