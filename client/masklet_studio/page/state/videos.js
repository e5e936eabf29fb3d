/** Videos: listed, opened, closed, removed. */
import { batch, untracked } from "../ui.js";
import { MaskCache } from "../masks/cache.js";
import { readRecords } from "../masks/records.js";
import { Refused, request } from "../wire/http.js";
import { Session } from "../wire/session.js";
import { onEvent } from "./events.js";
import { lookAtExport } from "./exporting.js";
import { FrameCache } from "./frames.js";
import { opened, problem } from "./opened.js";
import * as s from "./store.js";

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
