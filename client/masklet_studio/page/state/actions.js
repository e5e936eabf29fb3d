/** What a person can do: each verb of the page, and what comes back. */
import { batch, untracked } from "../ui.js";
import { lookAtExport } from "./exporting.js";
import { FrameCache } from "./frames.js";
import { MaskCache } from "../masks/cache.js";
import { Refused, request } from "./http.js";
import { readRecords } from "../masks/records.js";
import { Session } from "./session.js";
import * as s from "./store.js";

/** @typedef {import("../types.js").Place} Place */
/** @typedef {Pick<FrameCache, "look" | "get" | "ahead" | "retry" | "close" | "direction">} Frames */
/** @typedef {{session: Session, frames: Frames, masks: MaskCache, close?: () => void}} Opened */

/** @type {{value: Opened | null, redraw: () => void}} */
export const opened = { value: null, redraw: () => {} };

/** @param {Place} place @param {string | null} message */
export function problem(place, message) {
  const { [place]: _, ...others } = untracked(() => s.problems.value);
  s.problems.value = message ? { ...others, [place]: message } : others;
}

/**
 * Do a verb; a failure is told at its place.
 *
 * @param {Place} place @param {string} verb @param {any} [fields]
 */
export async function act(place, verb, fields) {
  if (!opened.value) return null;
  try {
    const reply = await opened.value.session.do(verb, fields);
    problem(place, null);
    return reply;
  } catch (error) {
    problem(place, error instanceof Error ? error.message : String(error));
    return null;
  }
}

// ---- videos

export async function loadState() {
  try {
    const state = await request("GET", "/api/state");
    batch(() => {
      s.server.value = state;
      s.videos.value = state.videos;
    });
    problem("video", null);
    return true;
  } catch (error) {
    problem("video", error instanceof Error ? error.message : String(error));
    return !(error instanceof Refused) || error.status !== 0;
  }
}

/** @param {import("../types.js").Video} video @param {number} [frame] */
export function openVideo(video, frame = 0) {
  closeVideo();
  batch(() => {
    s.video.value = video;
    s.frame.value = frame;
  });
  const session = new Session(`/api/videos/${video.id}/session`, {
    event: onEvent,
    binary: (data) => {
      readRecords(data).forEach((record) => opened.value?.masks.put(record));
      opened.value?.masks.trim(untracked(() => s.frame.value));
      opened.redraw();
    },
    connected: (connected) => {
      s.connected.value = connected;
      if (!connected) return;
      opened.value?.frames.retry();
      lookAtExport();
    },
  });
  const last = () => untracked(() => s.lastFrame.value);
  opened.value = {
    session,
    masks: new MaskCache({
      ask: (from, to) => session.do("masks", { from, to: Math.min(to, Math.max(from, last())) }),
      changed: () => opened.redraw(),
    }),
    frames: new FrameCache({
      url: (at, width) => `/videos/${video.id}/frames/${at}?width=${width}`,
      full: video.width,
      height: video.height,
      changed: () => opened.redraw(),
      failed: (message, at) => at === untracked(() => s.frame.value) && problem("stage", message),
    }),
  };
  location.hash = `#/video/${video.id}`;
}

export function closeVideo() {
  opened.value?.session.close();
  opened.value?.frames.close();
  opened.value?.masks.close();
  opened.value?.close?.();
  opened.value = null;
  batch(() => {
    s.video.value = null;
    s.objects.value = [];
    s.selected.value = null;
    s.prompts.value = new Map();
    s.pending.value = new Map();
    s.lanes.value = new Map();
    s.review.value = [];
    s.hidden.value = new Set();
    s.tracking.value = { running: false };
    s.exporting.value = null;
    s.lost.value = new Set();
    s.problems.value = {};
    s.playing.value = false;
    s.dialog.value = null;
  });
}

/** @param {string} id */
export async function removeVideo(id) {
  try {
    await request("DELETE", `/api/videos/${id}`);
  } catch (error) {
    return problem("video", error instanceof Error ? error.message : String(error));
  }
  await loadState();
}

// ---- events

/** @param {import("../types.js").Prompt[]} prompts */
const byKey = (prompts) => new Map(prompts.map((prompt) => [s.key(prompt.object, prompt.frame), prompt]));

/** @param {import("../types.js").TrackedObject[]} objects */
function setObjects(objects) {
  const known = new Set(s.objects.value.map(({ object }) => object));
  s.objects.value = objects;
  if (objects.some(({ object }) => object === s.selected.value)) return;
  const added = objects.find(({ object }) => !known.has(object));
  s.selected.value = (added ?? objects[objects.length - 1])?.object ?? null;
}

/** @type {ReturnType<typeof setTimeout> | undefined} */ let reviewTimer;

/** The list of doubtful frames, asked for again when masks changed: at most once in a second. */
function reviewSoon() {
  if (s.live.value) return;
  clearTimeout(reviewTimer);
  reviewTimer = setTimeout(async () => {
    const session = opened.value?.session;
    const reply = await session?.do("review").catch(() => null);
    if (reply && session === opened.value?.session) s.review.value = reply.frames ?? [];
  }, 800);
}

/** @type {Record<string, (event: any) => void>} */
const EVENTS = {
  state(event) {
    s.problems.value = {}; // what was told of the time before says nothing now
    if (event.video) s.video.value = event.video;
    setObjects(event.objects);
    s.prompts.value = byKey(event.prompts);
    s.marks.value = event.marks ?? { in: null, out: null };
    s.lanes.value = new Map(event.lanes.map((/** @type {any} */ lane) => [lane.object, lane]));
    s.tracking.value = event.tracking ?? { running: false };
    s.history.value = { can_undo: event.can_undo, can_redo: event.can_redo };
    s.engine.value = { connected: event.connected !== false, message: "" };
    s.loading.value = event.loading === true;
    if (event.status) s.status.value = event.status;
    if (event.recording) s.recording.value = event.recording;
    // After a restart the numbers of revisions may begin anew: what is held counts no more.
    opened.value?.masks.renew();
    reviewSoon();
  },
  objects: (event) => setObjects(event.objects),
  prompts: (event) => (s.prompts.value = byKey(event.prompts)),
  marks: (event) => (s.marks.value = event.marks ?? { in: event.in ?? null, out: event.out ?? null }),
  history: (event) => (s.history.value = event),
  tracking(event) {
    const was = s.tracking.value.running;
    followTracking(event, was);
    s.tracking.value = event;
    if (event.error) problem("track", event.error);
    if (was && !event.running) reviewSoon();
  },
  connection: (event) => (s.engine.value = { connected: event.connected, message: event.message ?? "" }),
  loading: (event) => (s.loading.value = event.loading),
  export(event) {
    const mine = s.exporting.value;
    if (mine && (mine.id === "" || mine.id === event.id)) s.exporting.value = event;
  },
  lanes(event) {
    const all = new Map(s.lanes.value);
    for (const lane of event.lanes) all.set(lane.object, lane);
    const objects = new Set(s.objects.value.map(({ object }) => object));
    for (const object of all.keys()) if (objects.size && !objects.has(object)) all.delete(object);
    s.lanes.value = all;
    if (!s.tracking.value.running) reviewSoon();
  },
  error: (event) => problem("stage", event.error?.message ?? "The studio cannot open this video."),
  invalid: (event) => opened.value?.masks.forget(event.object, event.from, event.to),
  video: (event) => (s.video.value = event.video),
  saved: () => {},
  status: (event) => (s.status.value = event),
  recording: (event) => (s.recording.value = event),
  say: (event) => say(event.message),
};

/** The run that the picture goes along with: where it began, and how far the picture is. @type {{from: number, at: number} | null} */
let followed = null;

/**
 * The picture goes along with a run forward that began at it, until somebody moves it. At the run's end it is where it
 * was, because what is done next often begins there; where a run is stopped, it stays, because something is to be seen.
 *
 * @param {any} event @param {boolean} was
 */
function followTracking({ running, direction, frame, to, error }, was) {
  const goes = running && direction === "forward" && s.follow.value && !s.playing.value;
  if (goes && !was && Math.abs(frame - s.frame.value) <= 1) followed = { from: s.frame.value, at: s.frame.value };
  else if (followed?.at !== s.frame.value) followed = null;
  else if (goes) s.frame.value = followed.at = Math.max(followed.at, frame);
  else {
    if (direction !== "forward" || (frame === to && !error)) s.frame.value = followed.from;
    followed = null;
  }
}

/** @param {any} event */
export function onEvent(event) {
  batch(() => EVENTS[event.event]?.(event));
  opened.redraw();
}

// ---- objects and prompts

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
  if (s.pending.value.get(id) !== shown) return; // a later one is on its way
  // The list of prompts may come after the reply: nothing disappears in between. The picture of a live video is gone.
  if (reply && !s.live.value && (points.length || box)) s.prompts.value = new Map(s.prompts.value).set(id, shown);
  settled(id);
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

// ---- tracking and editing

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

/** @param {number} to */
export function go(to) {
  s.frame.value = Math.min(s.lastFrame.value, Math.max(0, Math.round(to)));
}

/** @param {string} text */
export function say(text) {
  s.told.value = text.charAt(0).toUpperCase() + text.slice(1);
}
