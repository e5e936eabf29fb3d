/** What the page knows, as signals. Whatever is drawn reads them; the modules beside this one change them. */
import { computed, signal } from "../ui.js";

/** @typedef {import("../types.js").TrackedObject} TrackedObject */
/** @typedef {import("../types.js").Prompt} Prompt */
/** @template T @typedef {import("../vendor/signals-core.mjs").Signal<T>} Signal */

const kept = (/** @type {string} */ key, /** @type {string} */ usual) => localStorage.getItem(`masklet:${key}`) ?? usual;

export const server = signal(/** @type {import("../types.js").ServerState | null} */ (null));
export const videos = signal(/** @type {import("../types.js").Video[]} */ ([]));
export const video = signal(/** @type {import("../types.js").Video | null} */ (null));
export const objects = signal(/** @type {TrackedObject[]} */ ([]));
export const selected = signal(/** @type {number | null} */ (null));
export const hidden = signal(/** @type {Set<number>} */ (new Set()));
export const prompts = signal(/** @type {Map<string, Prompt>} */ (new Map()));
/** Prompts that were sent and not answered yet: they are shown at once. */
export const pending = signal(/** @type {Map<string, Prompt>} */ (new Map()));
export const lanes = signal(/** @type {Map<number, import("../types.js").Lane>} */ (new Map()));
export const marks = signal(/** @type {{in: number | null, out: number | null}} */ ({ in: null, out: null }));
export const tracking = signal(/** @type {import("../types.js").Tracking} */ ({ running: false }));
export const history = signal({ can_undo: false, can_redo: false });
export const connected = signal(false);
export const engine = signal({ connected: true, message: "" });
export const loading = signal(false); // the model server is still being started
export const review = signal(/** @type {import("../types.js").Doubt[]} */ ([]));
export const exporting = signal(/** @type {import("../types.js").Export | null} */ (null));
export const problems = signal(/** @type {Partial<Record<import("../types.js").Place, string>>} */ ({}));

/** Of a live video: how it goes, its recording, and the objects that the newest picture does not show. */
export const status = signal(/** @type {import("../types.js").LiveStatus} */ ({ state: "connecting", message: "", server: true }));
export const recording = signal(/** @type {import("../types.js").Recording} */ ({ on: false }));
export const lost = signal(/** @type {Set<number>} */ (new Set()));
export const opening = signal(false); // a camera is being opened

export const frame = signal(0);
export const playing = signal(false);
export const speed = signal(1);
export const waiting = signal(false); // the picture looked at is not here yet
export const tool = signal(/** @type {import("../types.js").Tool} */ ("point"));
export const brush = signal(16); // radius in pixels of the video
export const overlay = signal(/** @type {import("../types.js").OverlayStyle} */ (kept("overlay", "fill")));
export const opacity = signal(Number(kept("opacity", "0.5")));
export const shown = signal(true); // masks are drawn at all
export const zoom = signal(1); // screen pixels for a pixel of the video
export const scope = signal(/** @type {"all" | "selected"} */ ("all")); // what is tracked
export const dialog = signal(/** @type {null | "keys" | "export"} */ (null));
export const follow = signal(kept("follow", "yes") === "yes"); // the picture goes along with tracking
export const theme = signal(kept("theme", "system"));
export const scheme = signal(0); // counts changes of the system's colours
export const spoken = signal(""); // for screen readers alone: where the crosshair is
export const fresh = signal(/** @type {number | null} */ (null)); // the object of a live video that was just clicked
export const told = signal(""); // for screen readers, and the line at the stage

/** What an object is called; one without a name has its number. @param {TrackedObject | null | undefined} one */
export const called = (one) => one?.name || (one ? `Object ${one.object}` : "");

/** @param {string} key @param {string | number} value */
export function keep(key, value) {
  localStorage.setItem(`masklet:${key}`, String(value));
}

export const frames = computed(() => video.value?.frames ?? null);
export const lastFrame = computed(() => Math.max(0, (frames.value ?? 1) - 1));
export const fps = computed(() => video.value?.fps || 25);
export const live = computed(() => Boolean(video.value?.live));
export const chosen = computed(() => objects.value.find(({ object }) => object === selected.value) ?? null);

/** @param {number} object @param {number} at */
export const key = (object, at) => `${object}:${at}`;

/** The prompts of an object on a frame, also those that were not answered yet. @param {number} object @param {number} at */
export function promptOf(object, at) {
  return pending.value.get(key(object, at)) ?? prompts.value.get(key(object, at)) ?? null;
}

/** How many frames of the video have masks of an object. @param {number} object */
export function tracked(object) {
  return (lanes.value.get(object)?.runs ?? []).reduce((sum, [from, to]) => sum + to - from + 1, 0);
}

export const anythingTracked = computed(() => [...lanes.value.values()].some(({ runs }) => runs.length > 0));
export const framesTracked = computed(() => Math.max(0, ...[...lanes.value.keys()].map(tracked)));

/** When each frame is shown, in seconds; empty until the studio has told them. */
export const times = signal(/** @type {number[]} */ ([]));

/** For how many seconds a frame is shown. @param {number} at */
export const lasts = (at) => (at + 1 < times.value.length ? times.value[at + 1] - times.value[at] : 1 / fps.value);

/** @param {number} at */
export function clock(at) {
  const seconds = at < times.value.length ? times.value[at] - times.value[0] : at / fps.value;
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(2).padStart(5, "0")}`;
}
