/** What the studio tells of the open video, and what it changes on the page. */
import { batch } from "../ui.js";
import { opened, problem, say } from "./opened.js";
import * as s from "./store.js";

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
