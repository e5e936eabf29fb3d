/** Uploads in pieces. What was sent before a break is not sent again, also after the page was closed. */
import { Refused, request } from "./http.js";
import { signal } from "../ui.js";

const PIECE = 4 << 20;
const TRIES = 8;

/**
 * @typedef {{key: string, name: string, size: number, sent: number, error: string | null, waiting: boolean, stopped: boolean}}
 *   Upload
 */

/** @type {import("../vendor/signals-core.mjs").Signal<Upload[]>} */
export const uploads = signal(/** @type {Upload[]} */ ([]));

/** @param {Upload} upload @param {Partial<Upload>} change */
function change(upload, change) {
  Object.assign(upload, change);
  uploads.value = uploads.value.map((other) => (other.key === upload.key ? { ...upload } : other));
}

/** @param {number} seconds */
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/** The place of an upload that was begun, or a new one. @param {File} file @param {string} key */
async function begin(file, key) {
  const known = localStorage.getItem(key);
  if (known) {
    try {
      const { offset, size } = await request("GET", `/api/uploads/${known}`);
      if (size === file.size) return { id: known, offset };
    } catch (error) {
      if (!(error instanceof Refused) || error.status === 0) throw error;
    }
    localStorage.removeItem(key);
  }
  const started = await request("POST", "/api/uploads", { name: file.name, size: file.size });
  localStorage.setItem(key, started.id);
  return started;
}

/** @param {Upload} upload @param {File} file @returns {Promise<import("../types.js").Video | null>} */
async function send(upload, file) {
  let { id, offset } = await begin(file, upload.key);
  change(upload, { sent: offset, waiting: false });
  while (!upload.stopped) {
    try {
      const piece = file.slice(offset, offset + PIECE);
      const answer = await request("PATCH", `/api/uploads/${id}?offset=${offset}`, piece);
      offset = answer.offset;
      change(upload, { sent: offset });
      if (answer.video) return answer.video;
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 409) throw error;
      offset = error.body.offset;
    }
  }
  await request("DELETE", `/api/uploads/${id}`);
  return null;
}

/**
 * @param {File} file
 * @param {(video: import("../types.js").Video) => void} done
 */
export async function uploadFile(file, done) {
  const key = `upload:${file.name}:${file.size}:${file.lastModified}`;
  if (uploads.value.some((other) => other.key === key && !other.error)) return;
  /** @type {Upload} */
  const upload = { key, name: file.name, size: file.size, sent: 0, error: null, waiting: false, stopped: false };
  uploads.value = [...uploads.value.filter((other) => other.key !== key), upload];
  stops.set(key, () => change(upload, { stopped: true }));
  for (let tries = 1; ; tries++) {
    try {
      const video = await send(upload, file);
      dismiss(key);
      localStorage.removeItem(key);
      if (video) done(video);
      return;
    } catch (error) {
      const unreachable = error instanceof Refused && error.status === 0;
      if (!unreachable || tries >= TRIES || upload.stopped) {
        if (!unreachable) localStorage.removeItem(key);
        return change(upload, { error: error instanceof Error ? error.message : String(error), waiting: false });
      }
      change(upload, { waiting: true });
      await pause(Math.min(8, 0.5 * 2 ** tries));
    }
  }
}

/** @type {Map<string, () => void>} */ const stops = new Map();

/** Take an upload from the list; one that runs is given up. @param {string} key */
export function dismiss(key) {
  stops.get(key)?.();
  uploads.value = uploads.value.filter((other) => other.key !== key);
}
