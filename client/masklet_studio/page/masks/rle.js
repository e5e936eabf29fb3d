/**
 * COCO's compressed run-lengths, the same as `masklet.rle` in Python. Runs go down the columns, background first.
 * From the fourth run on the string holds the difference to the run before the last one, in groups of five bits.
 */

/** A mask's smallest rectangle, one byte a pixel, row by row. @typedef {{x: number, y: number, width: number, height: number, pixels: Uint8Array}} Patch */

/**
 * @param {Uint8Array} counts ASCII characters.
 * @returns {number[]} The lengths of the runs.
 */
export function readCounts(counts) {
  /** @type {number[]} */ const runs = [];
  let at = 0;
  while (at < counts.length) {
    let value = 0;
    let place = 0;
    let group;
    do {
      if (at >= counts.length) throw new Error("The run-lengths of a mask are cut off.");
      group = counts[at++] - 48;
      value += (group & 31) * 2 ** (5 * place++);
    } while (group & 32);
    if (group & 16) value -= 2 ** (5 * place);
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

/**
 * @param {number[]} runs
 * @returns {string}
 */
export function writeCounts(runs) {
  let text = "";
  for (let i = 0; i < runs.length; i++) {
    let value = i > 2 ? runs[i] - runs[i - 2] : runs[i];
    for (let more = true; more; ) {
      let group = value & 31;
      value >>= 5;
      more = group & 16 ? value !== -1 : value !== 0;
      if (more) group |= 32;
      text += String.fromCharCode(group + 48);
    }
  }
  return text;
}

/**
 * @param {number[]} runs
 * @param {number} width
 * @param {number} height
 * @returns {Patch | null} Null where nothing is foreground.
 */
export function paintRuns(runs, width, height) {
  const total = runs.reduce((sum, run) => sum + run, 0);
  if (total !== width * height) throw new Error(`The runs of a mask make ${total} pixels, not ${width} x ${height}.`);
  let [left, right, top, bottom] = [width, -1, height, -1];
  for (let i = 0, start = 0; i < runs.length; start += runs[i++]) {
    if (i % 2 === 0 || runs[i] === 0) continue;
    const end = start + runs[i] - 1;
    const first = Math.floor(start / height);
    const last = Math.floor(end / height);
    left = Math.min(left, first);
    right = Math.max(right, last);
    top = Math.min(top, first === last ? start % height : 0);
    bottom = Math.max(bottom, first === last ? end % height : height - 1);
  }
  if (right < 0) return null;
  const patch = { x: left, y: top, width: right - left + 1, height: bottom - top + 1, pixels: new Uint8Array(0) };
  patch.pixels = new Uint8Array(patch.width * patch.height);
  for (let i = 0, start = 0; i < runs.length; start += runs[i++]) {
    if (i % 2 === 0) continue;
    let column = Math.floor(start / height);
    let row = start % height;
    for (let rest = runs[i]; rest > 0; column++, row = 0) {
      const rows = Math.min(rest, height - row);
      rest -= rows;
      let to = (row - top) * patch.width + column - left;
      for (let k = 0; k < rows; k++, to += patch.width) patch.pixels[to] = 1;
    }
  }
  return patch;
}

/**
 * @param {Uint8Array} pixels One byte a pixel, row by row.
 * @param {number} width
 * @param {number} height
 * @returns {number[]}
 */
export function findRuns(pixels, width, height) {
  const runs = [];
  let value = 0;
  let length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      if (pixels[at] !== value) {
        runs.push(length);
        length = 0;
        value = pixels[at];
      }
      length++;
    }
  }
  runs.push(length);
  return runs;
}
