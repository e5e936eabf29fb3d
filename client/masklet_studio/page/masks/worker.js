/** The worker: decodes run-lengths, finds outlines, paints strokes. The page's own thread touches no pixels of masks. */
import { paintStroke } from "./brush.js";
import { traceOutlines } from "./contour.js";
import { findRuns, paintRuns, readCounts, writeCounts } from "./rle.js";

const NOTHING = new Int32Array(0);

/** @param {Uint8Array} counts @param {number} width @param {number} height */
function outlinesOf(counts, width, height) {
  const patch = counts.length ? paintRuns(readCounts(counts), width, height) : null;
  return patch ? traceOutlines(patch) : NOTHING;
}

/**
 * @param {Uint8Array} counts @param {number} width @param {number} height
 * @param {import("./brush.js").Stroke} stroke
 */
function edit(counts, width, height, stroke) {
  const pixels = new Uint8Array(width * height);
  const patch = counts.length ? paintRuns(readCounts(counts), width, height) : null;
  for (let y = 0; patch && y < patch.height; y++) {
    const row = patch.pixels.subarray(y * patch.width, (y + 1) * patch.width);
    pixels.set(row, (patch.y + y) * width + patch.x);
  }
  paintStroke(pixels, width, height, stroke);
  return writeCounts(findRuns(pixels, width, height));
}

self.onmessage = ({ data }) => {
  /** @type {any} */ let reply;
  try {
    if (data.stroke) reply = { counts: edit(data.counts, data.width, data.height, data.stroke) };
    else reply = { outlines: outlinesOf(data.counts, data.width, data.height) };
  } catch (error) {
    reply = { error: String(error) };
  }
  self.postMessage({ id: data.id, ...reply });
};
