/** The keyboard: one list, which both the handler and the sheet under "?" are made of. */
import { clearMarks, copyToNext, deleteMasks, mark, nextDoubtful, redo, stop, track, undo } from "./editing.js";
import { go, say } from "./opened.js";
import { addObject, clearPrompts, removeObject } from "./prompts.js";
import { toggleRecording } from "./live.js";
import * as s from "./store.js";
import { zoomBy } from "../stage/stage.js";

/** @typedef {{keys: string[], what: string, group: string, run: (event: KeyboardEvent) => void, shown?: string}} Shortcut */

/** @param {number} step */
const move = (step) => {
  s.playing.value = false;
  go(s.frame.value + step);
};

/** @param {import("../types.js").Tool} tool */
const use = (tool) => () => void (s.tool.value = tool);

/** @param {(object: number) => unknown} run */
const withObject = (run) => () => {
  if (s.selected.value === null) return say("Choose an object first: click one in the list, or press 1 to 9.");
  run(s.selected.value);
};

/** @param {number} step */
const brushBy = (step) => () => void (s.brush.value = Math.min(200, Math.max(1, Math.round(s.brush.value * step + Math.sign(step - 1)))));

/** @param {number} step */
const otherObject = (step) => () => {
  const all = s.objects.value;
  const at = all.findIndex(({ object }) => object === s.selected.value);
  if (all.length) s.selected.value = all[(at + step + all.length) % all.length].object;
};

export const STYLES = /** @type {import("../types.js").OverlayStyle[]} */ (["fill", "outline", "cutout", "matte"]);

/** @param {import("../types.js").OverlayStyle} style */
export function setOverlay(style) {
  s.overlay.value = style;
  s.shown.value = true;
  s.keep("overlay", style);
}

/** Ctrl stands for the command key of a Mac as well. @type {Shortcut[]} */
export const SHORTCUTS = [
  { group: "Move", keys: [" "], shown: "Space", what: "Play, pause", run: () => void (s.playing.value = !s.playing.value) },
  { group: "Move", keys: ["ArrowLeft", ","], shown: "← ,", what: "One frame back", run: () => move(-1) },
  { group: "Move", keys: ["ArrowRight", "."], shown: "→ .", what: "One frame on", run: () => move(1) },
  { group: "Move", keys: ["Shift+ArrowLeft"], shown: "Shift ←", what: "Ten frames back", run: () => move(-10) },
  { group: "Move", keys: ["Shift+ArrowRight"], shown: "Shift →", what: "Ten frames on", run: () => move(10) },
  { group: "Move", keys: ["Home"], shown: "Home", what: "First frame", run: () => move(-Infinity) },
  { group: "Move", keys: ["End"], shown: "End", what: "Last frame", run: () => move(s.lastFrame.value) },
  { group: "Move", keys: ["g"], what: "Go to a frame", run: () => document.getElementById("frame-field")?.focus() },
  { group: "Move", keys: ["n"], what: "Next doubtful frame", run: () => nextDoubtful() },

  { group: "Objects", keys: "123456789".split(""), shown: "1 – 9", what: "Select an object",
    run: ({ key }) => void (s.selected.value = s.objects.value[Number(key) - 1]?.object ?? s.selected.value) },
  { group: "Objects", keys: ["ArrowUp"], shown: "↑", what: "Object above", run: otherObject(-1) },
  { group: "Objects", keys: ["ArrowDown"], shown: "↓", what: "Object below", run: otherObject(1) },
  { group: "Objects", keys: ["a"], what: "Add an object", run: () => addObject() },
  { group: "Objects", keys: ["Delete", "Backspace"], shown: "Delete", what: "Delete mask on this frame",
    run: withObject((object) => deleteMasks(object, s.frame.value, s.frame.value)) },
  { group: "Objects", keys: ["Shift+Delete"], shown: "Shift Delete", what: "Delete the object", run: withObject(removeObject) },
  { group: "Objects", keys: ["c"], what: "Copy mask to next frame", run: () => copyToNext() },
  { group: "Objects", keys: ["x"], what: "Clear points on this frame", run: withObject(clearPrompts) },

  { group: "Tools", keys: ["v"], what: "Points: click +, right click −", run: use("point") },
  { group: "Tools", keys: ["b"], what: "Box", run: use("box") },
  { group: "Tools", keys: ["p"], what: "Brush", run: use("brush") },
  { group: "Tools", keys: ["e"], what: "Eraser", run: use("eraser") },
  { group: "Tools", keys: ["h"], what: "Hand: move the picture", run: use("hand") },
  { group: "Tools", keys: ["k"], what: "Crosshair: arrows move it, Enter clicks", run: () => focusStage() },
  { group: "Tools", keys: ["["], what: "Smaller brush", run: brushBy(1 / 1.25) },
  { group: "Tools", keys: ["]"], what: "Larger brush", run: brushBy(1.25) },

  { group: "Track", keys: ["t"], what: "Track forward", run: () => track("forward") },
  { group: "Track", keys: ["Shift+T"], shown: "Shift T", what: "Track backward", run: () => track("backward") },
  { group: "Track", keys: ["y"], what: "Track both ways", run: () => track("both") },
  { group: "Track", keys: ["Escape"], shown: "Esc", what: "Stop tracking; close a dialog",
    run: () => (s.dialog.value ? void (s.dialog.value = null) : s.tracking.value.running && stop()) },
  { group: "Track", keys: ["i"], what: "Mark in: track and export from here", run: () => mark("in") },
  { group: "Track", keys: ["o"], what: "Mark out: up to here", run: () => mark("out") },
  { group: "Track", keys: ["u"], what: "Take the marks away", run: () => clearMarks() },

  { group: "See", keys: ["s"], what: "Show, hide masks", run: () => void (s.shown.value = !s.shown.value) },
  { group: "See", keys: ["m"], what: "Fill, outline, cut-out, matte",
    run: () => setOverlay(STYLES[(STYLES.indexOf(s.overlay.value) + 1) % STYLES.length]) },
  { group: "See", keys: ["+", "="], shown: "+", what: "Zoom in", run: () => zoomBy(1.4) },
  { group: "See", keys: ["-"], shown: "−", what: "Zoom out", run: () => zoomBy(1 / 1.4) },
  { group: "See", keys: ["0"], what: "Whole picture", run: () => zoomBy(0) },

  { group: "Track", keys: ["f"], what: "Picture goes along with tracking", run: () => toggleFollow() },
  { group: "Live", keys: ["r"], what: "Record, stop recording", run: () => toggleRecording() },

  { group: "Work", keys: ["Ctrl+z"], shown: "Ctrl Z", what: "Undo", run: () => undo() },
  { group: "Work", keys: ["Ctrl+Shift+Z", "Ctrl+y"], shown: "Ctrl Shift Z", what: "Redo", run: () => redo() },
  { group: "Work", keys: ["Ctrl+e"], shown: "Ctrl E", what: "Export", run: () => void (s.dialog.value = "export") },
  { group: "Work", keys: ["?"], what: "This sheet", run: () => void (s.dialog.value = s.dialog.value === "keys" ? null : "keys") },
];

/** What is done by keys with a live video; all of it but recording is done with any video. */
const ALSO_LIVE = new Set("123456789".split("").concat("ArrowUp", "ArrowDown", "a", "Shift+Delete", "v", "b", "h", "k", "Ctrl+z", "Ctrl+Shift+Z", "s", "m", "+", "-", "0", "?", "r", "Escape"));

/** The keys of what is shown now. */
export const shortcuts = () => SHORTCUTS.filter(({ keys, group }) => (s.live.value ? ALSO_LIVE.has(keys[0]) : group !== "Live"));

export function toggleFollow() {
  s.follow.value = !s.follow.value;
  s.keep("follow", s.follow.value ? "yes" : "no");
}

/** With the focus on the stage, keys click. */
const focusStage = () => /** @type {HTMLElement | null} */ (document.querySelector(".stage-canvas"))?.focus();

/** @param {KeyboardEvent} event */
export function nameOf({ key, ctrlKey, metaKey, shiftKey, altKey }) {
  if (altKey) return "";
  const named = key.length > 1 || ctrlKey || metaKey || /[a-z]/i.test(key);
  const letter = key.length === 1 && !shiftKey ? key.toLowerCase() : key;
  return `${ctrlKey || metaKey ? "Ctrl+" : ""}${shiftKey && named ? "Shift+" : ""}${letter}`;
}

/** @param {KeyboardEvent} event */
export function onKey(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  const name = nameOf(event);
  if (target.matches("input:not([type=range], [type=color], [type=radio], [type=checkbox]), select, textarea")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (!s.video.value) return;
  if (s.dialog.value && name !== "Escape" && name !== "?") return;
  // A button that has the focus is pressed by these; the timeline, a menu and a slider move by the arrows.
  if ((event.key === " " || event.key === "Enter") && target.closest("button, a, summary, [role=radio]")) return;
  if (event.key.startsWith("Arrow") && target.closest("[role=radiogroup], input, [role=menu]")) return;
  const shortcut = shortcuts().find(({ keys }) => keys.includes(name));
  if (!shortcut) return;
  event.preventDefault();
  shortcut.run(event);
}
