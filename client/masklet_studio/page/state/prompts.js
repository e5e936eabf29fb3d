/** Objects, and what a person says of them on a frame: clicks, boxes, strokes. */
import { batch } from "../ui.js";
import { act, opened, say } from "./opened.js";
import * as s from "./store.js";

/** An object that is being added: clicks and strokes wait for it, and are its own. @type {Promise<number | null> | null} */
let adding = null;

export function addObject() {
  /** @type {Promise<number | null>} */
  const now = Promise.resolve(adding).then(async () => {
    const reply = await act("objects", "add_object", {});
    if (adding === now) adding = null;
    if (reply) s.selected.value = reply.object;
    return reply?.object ?? null;
  });
  adding = now;
  return now;
}

/** @param {number} object @param {Partial<import("../types.js").TrackedObject>} change */
export const changeObject = (object, change) => act("objects", "change_object", { object, ...change });

/** @param {number} object */
export const removeObject = (object) => act("objects", "remove_object", { object });

/** @param {import("../types.js").Prompt} prompt */
async function sendPrompt({ object, frame, points, box }) {
  const id = s.key(object, frame);
  const shown = { object, frame, points, box };
  s.pending.value = new Map(s.pending.value).set(id, shown);
  opened.redraw();
  const reply = await act("stage", "prompt", { object, frame, points, box, mask: null });
  if (reply?.pending && !s.loading.value) say(reply.message ?? "Kept. Its mask comes as soon as the model server answers.");
  if (reply && s.live.value) justClicked(object);
  if (s.pending.value.get(id) !== shown) return; // a later one is on its way
  // The list of prompts may come after the reply: nothing disappears in between. The picture of a live video is gone.
  if (reply && !s.live.value && (points.length || box)) s.prompts.value = new Map(s.prompts.value).set(id, shown);
  settled(id);
}

const READ = 15000; // milliseconds in which it is read what can be done after a click on a live video
/** @type {ReturnType<typeof setTimeout> | undefined} */ let reading;

/** @param {number} object */
function justClicked(object) {
  s.fresh.value = object;
  clearTimeout(reading);
  reading = setTimeout(() => (s.fresh.value = null), READ);
}

/** @param {string} id */
function settled(id) {
  const left = new Map(s.pending.value);
  left.delete(id);
  s.pending.value = left;
  opened.redraw();
}

/** The object that a click belongs to: the one being added, the selected one, or a new one where there is none. */
const target = () => adding ?? (s.selected.value === null ? addObject() : Promise.resolve(s.selected.value));

/** Add a point; one that is there already is taken away. @param {number} x @param {number} y @param {0 | 1} label @param {number} near */
export async function clickAt(x, y, label, near) {
  const at = s.frame.value;
  if (s.selected.value === null || adding) {
    s.pending.value = new Map(s.pending.value).set("new", { object: 0, frame: at, points: [[x, y, label]], box: null });
    opened.redraw();
  }
  const object = await target();
  if (object === null) return settled("new");
  const { points, box } = s.promptOf(object, at) ?? { points: [], box: null };
  const kept = points.filter(([px, py]) => Math.hypot(px - x, py - y) > near);
  if (kept.length === points.length) kept.push([round(x), round(y), label]);
  batch(() => {
    settled("new");
    sendPrompt({ object, frame: at, points: kept, box });
  });
}

/** @param {number} value */
const round = (value) => Math.round(value * 100) / 100;

/** @param {import("../types.js").Box} box */
export async function setBox(box) {
  const at = s.frame.value;
  const object = await target();
  if (object === null) return;
  const points = s.promptOf(object, at)?.points ?? [];
  await sendPrompt({ object, frame: at, points, box: /** @type {import("../types.js").Box} */ (box.map(round)) });
}

/** @param {number} object */
export const clearPrompts = (object) =>
  sendPrompt({ object, frame: s.frame.value, points: [], box: null });

/** @param {import("../masks/brush.js").Stroke} stroke */
export async function paintStroke(stroke) {
  const at = s.frame.value;
  const object = await target();
  const video = s.video.value;
  if (object === null || !opened.value || !video) return;
  const { masks } = opened.value;
  const id = s.key(object, at);
  s.pending.value = new Map(s.pending.value).set(id, s.promptOf(object, at) ?? { object, frame: at, points: [], box: null });
  const old = masks.get(at, object);
  const mask = await masks.paint(old, video.width, video.height, stroke);
  // Shown at once; the gateway's record has a newer revision and replaces it.
  masks.put({
    object, frame: at, revision: old?.revision ?? 0, visible: true, prompted: true, edited: true,
    iou: 1, score: 0, area: 0, width: video.width, height: video.height, counts: new TextEncoder().encode(mask),
  });
  opened.redraw();
  if (!(await act("stage", "edit_mask", { object, frame: at, mask }))) masks.forget(object, at, at);
  settled(id);
}
