/** The tools at the left, and what is told on the stage: hints, problems, the zoom. */
import { html, observe } from "../ui.js";
import { track } from "../state/editing.js";
import { opened } from "../state/opened.js";
import { addObject } from "../state/prompts.js";
import * as s from "../state/store.js";
import { zoomBy } from "../stage/stage.js";
import { IconButton, Problem } from "./common.js";

const TOOLS = /** @type {[import("../types.js").Tool, string, string, string][]} */ ([
  ["point", "point", "Points: click adds, right click takes away", "V"],
  ["box", "box", "Box: drag round the object", "B"],
  ["brush", "brush", "Brush: paint the mask", "P"],
  ["eraser", "eraser", "Eraser: take off the mask", "E"],
  ["hand", "hand", "Hand: move the picture", "H"],
]);

export const Tools = observe(() => {
  const painting = s.tool.value === "brush" || s.tool.value === "eraser";
  return html`<nav class="tools" aria-label="Tools">
    ${TOOLS.filter(([tool]) => !s.live.value || (tool !== "brush" && tool !== "eraser")).map(
      ([tool, icon, name, keys]) => html`<${IconButton} key=${tool} icon=${icon} name=${name} keys=${keys} size=${20}
        pressed=${s.tool.value === tool} onClick=${() => (s.tool.value = tool)} />`,
    )}
    ${painting &&
    html`<label class="brush-size" title="Size of the brush  ([ and ])">
      <input type="range" min="1" max="100" aria-label="Size of the brush" value=${s.brush.value}
        onInput=${(/** @type {any} */ event) => (s.brush.value = Number(event.target.value))} />
      <span class="number">${s.brush.value}</span>
    </label>`}
    <span class="grow"></span>
    <${IconButton} icon="plus" name="Zoom in" keys="+" onClick=${() => zoomBy(1.4)} />
    <button type="button" class="zoom number" title="Whole picture  (0)" aria-keyshortcuts="0"
      aria-label=${`${Math.round(s.zoom.value * 100)}%, show the whole picture`} onClick=${() => zoomBy(0)}>
      ${Math.round(s.zoom.value * 100)}%
    </button>
    <${IconButton} icon="minus" name="Zoom out" keys="-" onClick=${() => zoomBy(1 / 1.4)} />
  </nav>`;
});

/** What to do next, for a person who never saw this. @returns {{text: unknown, act?: [string, () => unknown], late?: boolean, also?: [string, () => unknown]} | null} */
function hint() {
  const { running } = s.tracking.value;
  if (running || s.playing.value) return null;
  const object = s.selected.value;
  const at = s.frame.value;
  if (s.live.value) return liveHint(object);
  if (s.tool.value === "brush") return { text: html`Paint the mask. <kbd>E</kbd> erases, <kbd>[</kbd> <kbd>]</kbd> change the size.` };
  if (s.tool.value === "eraser") return { text: html`Erase from the mask. <kbd>P</kbd> paints again.` };
  if (object === null) return { text: html`<b>Click the object</b> that you want to track` };
  const name = s.called(s.chosen.value) || "it";
  const here = s.promptOf(object, at);
  const lane = s.lanes.value.get(object);
  const prompted = [...s.prompts.value.values()].some((prompt) => prompt.object === object);
  if (!here?.points.length && !here?.box && !here?.has_mask) {
    if (prompted || lane?.runs.length) return null;
    return { text: html`<b>Click</b> on ${name}, or drag a box round it` };
  }
  const found = lane?.runs.some(([from, to]) => from <= at && at <= to);
  if (s.loading.value && !found) return { text: html`The model is being loaded. Your click is kept: the mask comes by itself.`, also: ["Another object", addObject] };
  if (s.pending.value.has(s.key(object, at))) return { text: html`Looking for ${name}…`, late: true };
  const after = lane?.runs.some(([, to]) => to > at);
  if (!after) return at < s.lastFrame.value ? {
    text: html`Not right yet? Click what is missing, <b>right click</b> what is too much.`,
    act: ["Track forward", () => track("forward")],
    also: ["Another object", addObject],
  } : null;
  const recorded = here?.has_mask && !opened.value?.masks.get(at, object)?.edited; // the first mask of a recording
  if (!lane?.untracked.includes(at) || recorded) return null;
  return { text: html`${name} is corrected on this frame.`, act: ["Track it on from here", () => track("forward", [object])] };
}

/** @param {number | null} object @returns {{text: unknown, also?: [string, () => unknown]} | null} */
function liveHint(object) {
  const { state, server } = s.status.value;
  if (state !== "running" || !server || s.pending.value.size) return null;
  if (object === null) return { text: html`<b>Click an object</b> in the picture: it is tracked from then on` };
  const name = s.called(s.chosen.value) || "it";
  if (!opened.value?.masks.get(s.frame.value, object)) return { text: html`<b>Click</b> on ${name}, or drag a box round it` };
  if (s.lost.value.has(object)) return { text: html`${name} is out of sight. Click it again where you see it.` };
  if (s.fresh.value !== object) return null;
  return {
    text: html`Not right yet? Click what is missing, <b>right click</b> what is too much.`,
    also: ["Another object", addObject],
  };
}

export const Hint = observe(() => {
  const told = s.told.value;
  const one = told ? { text: told, act: undefined, late: false, also: undefined } : hint();
  return html`<div class="over-stage">
    <${Problem} place="stage" />
    <span class="unseen" role="status">${s.spoken.value}</span>
    ${one &&
    html`<div class=${told ? "hint told" : one.late ? "hint late" : "hint"} role="status">
      <span>${one.text}</span>
      ${one.also && html`<button type="button" class="button small" onClick=${one.also[1]}>${one.also[0]}</button>`}
      ${one.act && html`<button type="button" class="button small primary" onClick=${one.act[1]}>${one.act[0]}</button>`}
    </div>`}
  </div>`;
});

export const Waiting = observe(() => (s.waiting.value ? html`<div class="waiting" aria-hidden="true"><span class="spinner"></span></div>` : null));
