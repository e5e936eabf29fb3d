/** Plays at the video's speed. A frame is shown when its picture is here; where pictures come late, playing waits. */
import { effect, untracked } from "../ui.js";
import { opened } from "./opened.js";
import * as s from "./store.js";

const MOST_SKIPPED = 8; // frames: at more than this a slow screen shows fewer pictures, and the time is kept

/** Plays while `playing` is true. @returns {() => void} Ends it. */
export function startPlayer() {
  let request = 0;
  let begun = 0; // when the frame that is shown was due

  /** @param {number} now */
  const tick = (now) => {
    request = requestAnimationFrame(tick);
    const each = (/** @type {number} */ frame) => (1000 * s.lasts(frame)) / s.speed.value;
    let [due, spent] = [0, 0];
    while (due < MOST_SKIPPED && now - begun >= spent + each(s.frame.value + due)) spent += each(s.frame.value + due++);
    if (due < 1) return;
    const [first, end] = range();
    const at = s.frame.value;
    if (at >= end) {
      if (s.tracking.value.running) return;
      s.playing.value = false;
      return;
    }
    const here = opened.value?.frames.ahead(at) ?? 0;
    const step = Math.min(due, here, end - at);
    if (step < 1) {
      begun = now - each(at);
      opened.redraw();
      return;
    }
    begun = step < due ? now : begun + spent;
    s.frame.value = Math.max(first, at + step);
  };

  return effect(() => {
    cancelAnimationFrame(request);
    if (!s.playing.value) return;
    untracked(() => {
      const [first, end] = range();
      if (s.frame.value >= end || s.frame.value < first) s.frame.value = first;
      begun = performance.now();
      request = requestAnimationFrame(tick);
    });
  });
}

/** What is played: between the marks, where there are some. @returns {[number, number]} */
function range() {
  const { in: first, out: last } = s.marks.value;
  return [first ?? 0, last ?? s.lastFrame.value];
}
