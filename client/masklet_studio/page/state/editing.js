/** Tracking, and changes of masks on many frames. */
import { act, go, say } from "./opened.js";
import * as s from "./store.js";

/** @param {"forward" | "backward" | "both"} direction @param {number[] | null} [objects] */
export function track(direction, objects) {
  s.playing.value = false;
  const only = objects ?? (s.scope.value === "selected" && s.selected.value !== null ? [s.selected.value] : null);
  return act("track", "track", { direction, from: s.frame.value, objects: only });
}

export const stop = () => act("track", "stop");
export const undo = () => act("stage", "undo");
export const redo = () => act("stage", "redo");

/** @param {"in" | "out"} which */
export function mark(which) {
  const at = s.frame.value;
  const marks = { ...s.marks.value, [which]: at };
  // A mark on the wrong side of the other one takes the other one away.
  if (which === "in" && marks.out !== null && marks.out < at) marks.out = null;
  if (which === "out" && marks.in !== null && marks.in > at) marks.in = null;
  return act("track", "marks", marks);
}

export const clearMarks = () => act("track", "marks", { in: null, out: null });

/** @param {number} object @param {number} from @param {number} to */
export const deleteMasks = (object, from, to) => act("stage", "delete_masks", { object, from, to });

/** @param {number} a @param {number} b */
export const exchange = (a, b) => act("objects", "exchange", { a, b, from: s.frame.value });

export async function copyToNext() {
  const object = s.selected.value;
  const at = s.frame.value;
  if (object === null || at >= s.lastFrame.value) return;
  if (await act("stage", "copy_mask", { object, from: at, to: at + 1 })) go(at + 1);
}

export async function nextDoubtful() {
  const reply = await act("track", "doubtful", { after: s.frame.value });
  if (!reply) return;
  if (reply.frame === null) return say("No frame needs a look: every mask is as sure as the ones round it.");
  if (reply.object) s.selected.value = reply.object;
  go(reply.frame);
  say(reply.why);
}
