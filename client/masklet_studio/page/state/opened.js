/** The video that is open, and what every verb of the page needs of it. */
import { untracked } from "../ui.js";
import * as s from "./store.js";

/** @typedef {import("../types.js").Place} Place */
/** @typedef {Pick<import("./frames.js").FrameCache, "look" | "get" | "ahead" | "retry" | "close" | "direction">} Frames */
/** @typedef {{session: import("../wire/session.js").Session, frames: Frames, masks: import("../masks/cache.js").MaskCache,
 *   close?: () => void}} Opened */

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

/** @param {number} to */
export function go(to) {
  s.frame.value = Math.min(s.lastFrame.value, Math.max(0, Math.round(to)));
}

/** @param {string} text */
export function say(text) {
  s.told.value = text.charAt(0).toUpperCase() + text.slice(1);
}
