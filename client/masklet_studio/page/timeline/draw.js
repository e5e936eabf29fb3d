/** Draws the timeline: a ruler, the marks, a lane an object, and the playhead. */

export const RULER = 26;
export const LANE = 30;
const STEPS = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10000, 20000, 50000];

/**
 * @typedef {{ruler: string, line: string, text: string, faint: string, head: string, lane: string, laneOn: string,
 *   warn: string, good: string, marked: string, ink: string}} Colours
 * @typedef {{object: number, name: string, colour: string, selected: boolean, hidden: boolean,
 *   lane: import("../types.js").Lane | null, ious: Uint8Array, prompts: number[], doubts: number[]}} Row
 * @typedef {{width: number, height: number, gutter: number, from: number, to: number, frames: number, frame: number,
 *   hover: number | null, scroll: number, marks: {in: number | null, out: number | null}, rows: Row[],
 *   tracking: import("../types.js").Tracking, clock: (frame: number) => string, colours: Colours}} Timeline
 */

const PAD = 8; // beside the first and the last frame, so that what is drawn at them is seen whole

/** @param {Timeline} t */
const across = (t) => t.width - t.gutter - 2 * PAD;

/** Where a frame begins. @param {Timeline} t @param {number} frame */
export const placeOf = (t, frame) => t.gutter + PAD + ((frame - t.from) / (t.to - t.from)) * across(t);

/** @param {Timeline} t @param {number} x */
export const frameAt = (t, x) => Math.floor(t.from + ((x - t.gutter - PAD) / across(t)) * (t.to - t.from));

/** @param {CanvasRenderingContext2D} c @param {Timeline} t */
export function drawTimeline(c, t) {
  c.clearRect(0, 0, t.width, t.height);
  c.font = "11px system-ui, sans-serif";
  c.textBaseline = "middle";
  c.save();
  c.beginPath();
  c.rect(0, RULER, t.width, t.height - RULER);
  c.clip();
  t.rows.forEach((row, n) => drawLane(c, t, row, RULER + n * LANE - t.scroll));
  c.restore();
  drawRuler(c, t);
  drawMarks(c, t);
  drawHeads(c, t);
}

/** @param {CanvasRenderingContext2D} c @param {Timeline} t */
function drawRuler(c, t) {
  c.fillStyle = t.colours.ruler;
  c.fillRect(0, 0, t.width, RULER);
  const each = across(t) / (t.to - t.from);
  const step = STEPS.find((frames) => frames * each >= 76) ?? STEPS[STEPS.length - 1];
  const small = step % 5 === 0 && (step / 5) * each >= 5 ? step / 5 : step % 2 === 0 && (step / 2) * each >= 5 ? step / 2 : step;
  c.strokeStyle = t.colours.line;
  c.lineWidth = 1;
  c.beginPath();
  for (let frame = Math.ceil(t.from / small) * small; frame < t.to; frame += small) {
    const x = Math.round(placeOf(t, frame)) + 0.5;
    if (x < t.gutter) continue;
    c.moveTo(x, RULER - (frame % step === 0 ? 8 : 4));
    c.lineTo(x, RULER);
  }
  c.moveTo(0, RULER - 0.5);
  c.lineTo(t.width, RULER - 0.5);
  c.stroke();
  c.fillStyle = t.colours.text;
  c.textAlign = "left";
  for (let frame = Math.ceil(t.from / step) * step; frame < t.to; frame += step) {
    const x = placeOf(t, frame);
    if (x >= t.gutter - 1 && x < t.width - 30) c.fillText(String(frame), x + 4, 10);
  }
}

/** @param {CanvasRenderingContext2D} c @param {Timeline} t @param {Row} row @param {number} top */
function drawLane(c, t, row, top) {
  if (top > t.height || top + LANE < RULER) return;
  c.fillStyle = row.selected ? t.colours.laneOn : t.colours.lane;
  c.fillRect(0, top, t.width, LANE);
  c.save();
  c.beginPath();
  c.rect(t.gutter, top, t.width - t.gutter, LANE);
  c.clip();
  if (row.hidden) c.globalAlpha = 0.4;
  const [bar, tall] = [top + 7, LANE - 14];
  for (const [from, to, state] of row.lane?.runs ?? []) {
    const left = placeOf(t, from);
    const wide = Math.max(1.5, placeOf(t, to + 1) - left);
    c.fillStyle = row.colour;
    if (state === 1) {
      c.globalAlpha = row.hidden ? 0.25 : row.selected ? 0.6 : 0.42;
      c.beginPath();
      c.roundRect(left, bar, wide, tall, Math.min(3, wide / 2));
      c.fill();
    } else {
      c.globalAlpha = 0.5;
      c.fillRect(left, bar + tall / 2 - 1, wide, 2);
    }
    c.globalAlpha = row.hidden ? 0.4 : 1;
  }
  drawIou(c, t, row, bar, tall);
  for (const frame of row.doubts) drawDoubt(c, t, frame, top);
  for (const [frame, kind] of row.lane?.events ?? []) drawEvent(c, t, frame, kind, bar, tall);
  for (const frame of row.lane?.corrections ?? []) drawDiamond(c, t, frame, top, row.colour, true);
  for (const frame of row.prompts) drawDiamond(c, t, frame, top, row.colour, false);
  c.restore();
  c.fillStyle = t.colours.line;
  c.fillRect(0, top + LANE - 1, t.width, 1);
  drawName(c, t, row, top);
}

/** @param {CanvasRenderingContext2D} c @param {Timeline} t @param {Row} row @param {number} top */
function drawName(c, t, row, top) {
  c.fillStyle = row.colour;
  c.beginPath();
  c.arc(18, top + LANE / 2, 5, 0, 2 * Math.PI);
  c.fill();
  c.fillStyle = row.selected ? t.colours.ink : t.colours.text;
  c.font = `${row.selected ? 600 : 400} 12px system-ui, sans-serif`;
  c.textAlign = "left";
  let name = row.name;
  while (name.length > 1 && c.measureText(name).width > t.gutter - 44) name = name.slice(0, -1);
  c.fillText(name === row.name ? name : `${name.slice(0, -1)}…`, 32, top + LANE / 2 + 0.5);
}

/** Predicted IoU as a line within the bar: the lowest of the frames of a pixel. @param {CanvasRenderingContext2D} c @param {Timeline} t @param {Row} row @param {number} top @param {number} tall */
function drawIou(c, t, { ious }, top, tall) {
  if (!ious.length) return;
  c.strokeStyle = t.colours.ink;
  c.globalAlpha *= 0.75;
  c.lineWidth = 1;
  c.beginPath();
  let down = false;
  const each = across(t) / (t.to - t.from);
  const step = Math.max(1, Math.floor(1 / each));
  for (let frame = Math.max(0, Math.floor(t.from)); frame < Math.min(t.to + step, ious.length); frame += step) {
    let lowest = 255;
    for (let n = frame; n < Math.min(frame + step, ious.length); n++) lowest = Math.min(lowest, ious[n]);
    if (lowest === 255) {
      down = false;
      continue;
    }
    const x = placeOf(t, frame + step / 2);
    const y = top + tall - 1.5 - (lowest / 254) * (tall - 3);
    if (down) c.lineTo(x, y);
    else c.moveTo(x, y);
    down = true;
  }
  c.stroke();
  c.globalAlpha = 1;
}

/** @param {CanvasRenderingContext2D} c @param {Timeline} t @param {number} frame */
const middle = (c, t, frame) => placeOf(t, frame + 0.5);

/** @param {CanvasRenderingContext2D} c @param {Timeline} t @param {number} frame @param {number} top */
function drawDoubt(c, t, frame, top) {
  const x = middle(c, t, frame);
  c.fillStyle = t.colours.warn;
  c.beginPath();
  c.moveTo(x - 4, top + 1);
  c.lineTo(x + 4, top + 1);
  c.lineTo(x, top + 7);
  c.fill();
}

/** A prompt is a filled diamond, a correction a hollow one. @param {CanvasRenderingContext2D} c @param {Timeline} t @param {number} frame @param {number} top @param {string} colour @param {boolean} hollow */
function drawDiamond(c, t, frame, top, colour, hollow) {
  const x = middle(c, t, frame);
  const y = top + LANE / 2;
  const size = hollow ? 7.5 : 4.5;
  c.beginPath();
  c.moveTo(x, y - size);
  c.lineTo(x + size, y);
  c.lineTo(x, y + size);
  c.lineTo(x - size, y);
  c.closePath();
  c.lineWidth = 1.5;
  c.strokeStyle = t.colours.ink;
  c.fillStyle = colour;
  if (!hollow) c.fill();
  c.stroke();
}

/** @param {CanvasRenderingContext2D} c @param {Timeline} t @param {number} frame @param {"lost" | "found"} kind @param {number} top @param {number} tall */
function drawEvent(c, t, frame, kind, top, tall) {
  const x = Math.round(placeOf(t, frame));
  c.fillStyle = kind === "lost" ? t.colours.warn : t.colours.good;
  c.fillRect(x - 1, top - 2, 2, tall + 4);
}

/** @param {CanvasRenderingContext2D} c @param {Timeline} t */
function drawMarks(c, t) {
  const { in: first, out: last } = t.marks;
  if (first === null && last === null) return;
  const left = first === null ? t.gutter : Math.max(t.gutter, placeOf(t, first));
  const right = last === null ? t.width : placeOf(t, last + 1);
  c.fillStyle = t.colours.marked;
  if (left > t.gutter) c.fillRect(t.gutter, RULER, left - t.gutter, t.height);
  if (right < t.width) c.fillRect(Math.max(t.gutter, right), RULER, t.width, t.height);
  c.fillStyle = t.colours.head;
  c.globalAlpha = 0.35;
  c.fillRect(left, RULER - 5, Math.max(0, right - left), 5);
  c.globalAlpha = 1;
  if (first !== null && left >= t.gutter) c.fillRect(left, RULER - 12, 2, 12);
  if (last !== null) c.fillRect(right - 2, RULER - 12, 2, 12);
}

/** @param {CanvasRenderingContext2D} c @param {Timeline} t */
function drawHeads(c, t) {
  c.fillStyle = t.colours.line;
  c.fillRect(t.gutter - 1, 0, 1, t.height);
  c.save();
  c.beginPath();
  c.rect(t.gutter - 8, 0, t.width - t.gutter + 8, t.height);
  c.clip();
  if (t.hover !== null) {
    c.fillStyle = t.colours.faint;
    c.fillRect(Math.round(middle(c, t, t.hover)), RULER, 1, t.height);
  }
  if (t.tracking.running && t.tracking.frame != null) {
    c.fillStyle = t.colours.good;
    c.fillRect(Math.round(middle(c, t, t.tracking.frame)) - 1, RULER, 2, t.height);
  }
  const x = middle(c, t, t.frame);
  const each = across(t) / (t.to - t.from);
  c.fillStyle = t.colours.head;
  if (each > 6) {
    c.globalAlpha = 0.16;
    c.fillRect(placeOf(t, t.frame), RULER, each, t.height);
    c.globalAlpha = 1;
  }
  c.fillRect(Math.round(x) - 0.75, 14, 1.5, t.height);
  const label = String(t.frame);
  c.font = "600 11px system-ui, sans-serif";
  const wide = c.measureText(label).width + 14;
  const left = Math.min(t.width - wide, Math.max(t.gutter - 6, x - wide / 2));
  c.beginPath();
  c.roundRect(left, 2, wide, 17, 4);
  c.fill();
  c.fillStyle = "#fff";
  c.textAlign = "center";
  c.fillText(label, left + wide / 2, 11);
  c.restore();
}
