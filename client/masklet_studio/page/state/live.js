/** A camera that is tracked while it runs: its newest picture with its masks, how it goes, and its recording. */
import { batch, untracked } from "../ui.js";
import { MaskCache } from "../masks/cache.js";
import { readRecords } from "../masks/records.js";
import { onEvent } from "./events.js";
import { opened, problem, say } from "./opened.js";
import { closeVideo, loadState, openVideo } from "./videos.js";
import { BrowserCamera } from "./camera.js";
import { request } from "../wire/http.js";
import { Session } from "../wire/session.js";
import * as s from "./store.js";

const HEADER = 16;
const PICTURE = 2; // the version of messages that begin with a picture; those of masks alone have 1

/** @type {BrowserCamera | null} */ let camera = null;

/** What the stage draws: the newest picture, and no other. */
class LiveFrames {
  direction = 1;
  /** @type {{bitmap: ImageBitmap, width: number, frame: number} | null} */ picture = null;

  /** @param {number} frame */
  get(frame) {
    return this.picture?.frame === frame ? this.picture : null;
  }

  /** @param {number} frame @param {ImageBitmap} bitmap */
  show(frame, bitmap) {
    this.picture?.bitmap.close();
    this.picture = { frame, bitmap, width: bitmap.width };
  }

  look() {}
  retry() {}
  ahead() {
    return 0;
  }

  close() {
    this.picture?.bitmap.close();
    this.picture = null;
  }
}

/** @typedef {{source?: string, named?: number, browser?: boolean}} Source */

/** Open a camera or a stream, and look at it. @param {Source} source */
export async function startLive(source) {
  problem("live", null);
  s.opening.value = true;
  try {
    const own = source.browser ? await BrowserCamera.open() : null;
    try {
      const video = await request("POST", "/api/live", source);
      sessionStorage.setItem(`live:${video.id}`, JSON.stringify(source));
      openLive(video, own);
    } catch (error) {
      own?.close();
      throw error;
    }
  } catch (error) {
    problem("live", error instanceof Error ? error.message : String(error));
  }
  s.opening.value = false;
}

/** @param {import("../types.js").Video} video @param {BrowserCamera | null} [own] This browser's camera, if the pictures are its own. */
export function openLive(video, own = null) {
  closeVideo();
  camera = own;
  batch(() => {
    s.video.value = video;
    s.frame.value = 0;
    s.recording.value = { on: false };
    s.status.value = { state: "connecting", message: "", server: true };
    if (s.tool.value === "brush" || s.tool.value === "eraser") s.tool.value = "point";
  });
  const frames = new LiveFrames();
  let work = Promise.resolve();
  /** @type {Session} */
  const session = new Session(`/api/live/${video.id}/session`, {
    event: (event) => {
      if (event.event === "more") return camera?.send(session);
      if (event.event === "state") giveCamera(video, session);
      onEvent(event);
    },
    // One after the other: the gateway sends no more than two pictures ahead of what was drawn.
    binary: (data) => void (work = work.then(() => take(data)).catch((error) => problem("stage", String(error)))),
    connected: (connected) => (s.connected.value = connected),
    over: (message) => (s.status.value = { ...s.status.value, state: "ended", message }),
  });
  const masks = new MaskCache({ ask: () => Promise.resolve(), changed: () => opened.redraw() });
  opened.value = { session, frames, masks, close: closeCamera };
  location.hash = `#/live/${video.id}`;

  /** @param {ArrayBuffer} data */
  async function take(data) {
    if (opened.value?.session !== session) return;
    const head = new DataView(data);
    if (head.getUint8(0) !== PICTURE) {
      readRecords(data).forEach((record) => masks.put(record));
      return opened.redraw();
    }
    const number = head.getUint32(4, true);
    const length = head.getUint32(12, true);
    const records = readRecords(data, HEADER + length);
    records.forEach((record) => masks.put(record));
    const [bitmap] = await Promise.all([
      createImageBitmap(new Blob([new Uint8Array(data, HEADER, length)], { type: "image/jpeg" })),
      masks.settle(number), // so that no picture is shown without its masks
    ]);
    if (opened.value?.session !== session) return bitmap.close();
    frames.show(number, bitmap);
    masks.keepFrom(number - 1);
    const lost = new Set(records.filter(({ visible }) => !visible).map(({ object }) => object));
    const before = untracked(() => s.lost.value);
    batch(() => {
      s.frame.value = number;
      if (lost.size !== before.size || [...lost].some((object) => !before.has(object))) s.lost.value = lost;
    });
    opened.redraw();
    requestAnimationFrame(() => session.tell("drawn", { number }));
  }
}

/** Give this browser's camera, if the session has its pictures from this tab, also after a reload. @param {import("../types.js").Video} video @param {Session} session */
async function giveCamera(video, session) {
  if (!video.from_page || !sessionStorage.getItem(`live:${video.id}`)) return;
  try {
    camera ??= await BrowserCamera.open();
    await session.do("give_camera");
  } catch (error) {
    problem("stage", error instanceof Error ? error.message : String(error));
  }
}

function closeCamera() {
  camera?.close();
  camera = null;
}

/** End the camera for all tabs; a recording is finished. */
export async function endLive() {
  const video = s.video.value;
  if (!video) return;
  sessionStorage.removeItem(`live:${video.id}`);
  await request("DELETE", `/api/live/${video.id}`).catch(() => null); // it may be over
  leaveLive();
}

/** Go to the first page. The camera is free some seconds after the last tab has left it. */
export function leaveLive() {
  closeVideo();
  history.replaceState(null, "", "#/");
  loadState();
}

/** Open again what has ended. */
export async function againLive() {
  const id = s.video.value?.id ?? "";
  const source = JSON.parse(sessionStorage.getItem(`live:${id}`) ?? "null") ?? { source: s.video.value?.name };
  leaveLive();
  await startLive(source);
}

export async function toggleRecording() {
  const session = opened.value?.session;
  const on = !s.recording.value.on;
  try {
    await session?.do("record", { on });
    if (on) say("Everything from here on is kept in the project");
    else s.told.value = "";
  } catch (error) {
    problem("track", error instanceof Error ? error.message : String(error));
  }
}

/** Open what was recorded. */
export async function openRecording() {
  const recorded = s.recording.value.video;
  if (!recorded) return;
  leaveLive();
  for (let tries = 0; tries < 100; tries++) {
    await loadState();
    const video = s.videos.value.find(({ id }) => id === recorded.id);
    if (!video || video.error || s.video.value) return;
    if (video.ready) return openVideo(video);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
