/** The export that runs, if one does. */
import { untracked } from "../ui.js";
import { problem } from "./opened.js";
import { request } from "../wire/http.js";
import * as s from "./store.js";

/** What became of an export whose events were missed while the connection was lost. */
export async function lookAtExport() {
  const { id, ready } = untracked(() => s.exporting.value) ?? { id: "", ready: true };
  if (!id || ready) return;
  try {
    s.exporting.value = await request("GET", `/api/exports/${id}`);
  } catch (error) {
    s.exporting.value = null;
    problem("export", `The export was broken off: ${error instanceof Error ? error.message : error}`);
  }
}

/** @param {string} format @param {any} options */
export async function startExport(format, options) {
  const video = s.video.value;
  if (!video) return;
  problem("export", null);
  s.exporting.value = { id: "", done: 0, total: null, ready: false, error: null };
  try {
    const { id } = await request("POST", `/api/videos/${video.id}/exports`, { format, options });
    // Its first events may have come before its id was known here.
    if (s.exporting.value?.id === "") s.exporting.value = { id, done: 0, total: null, ready: false, error: null };
  } catch (error) {
    s.exporting.value = null;
    problem("export", error instanceof Error ? error.message : String(error));
  }
}
