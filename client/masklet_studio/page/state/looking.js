/** Tells the studio which frame is looked at, so that the server has encoded it when it is clicked. */
import { effect } from "../ui.js";
import { opened } from "./opened.js";
import * as s from "./store.js";

const REST = 120; // milliseconds on a frame: who stays so long looks at it

/** @returns {() => void} Ends it. */
export function startLooking() {
  /** @type {ReturnType<typeof setTimeout> | undefined} */ let timer;
  return effect(() => {
    const frame = s.frame.value;
    const looks = s.video.value && !s.live.value && s.connected.value && !s.playing.value;
    clearTimeout(timer);
    if (!looks) return;
    // A hint: where it is lost, the click takes a little longer.
    timer = setTimeout(() => opened.value?.session.do("look", { frame }).catch(() => null), REST);
  });
}
