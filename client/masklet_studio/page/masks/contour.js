/** From pixels to outlines: closed lines along the edges of pixels, which are filled and stroked at any zoom. */

const STEP_X = [1, 0, -1, 0]; // right, down, left, up
const STEP_Y = [0, 1, 0, -1];
// From the corner where a step starts, the pixel on its right hand and the one on its left hand.
const RIGHT_X = [0, -1, -1, 0];
const RIGHT_Y = [0, 0, -1, -1];
const LEFT_X = [0, 0, -1, -1];
const LEFT_Y = [-1, 0, 0, -1];

/**
 * The outlines of a mask: the border of each connected part, and of each hole in it.
 *
 * @param {import("./rle.js").Patch} patch
 * @returns {Int32Array} For each outline the number of its corners, then x and y of each, in pixels of the mask.
 */
export function traceOutlines(patch) {
  const { width, height, pixels } = patch;
  const seen = new Uint8Array(width * height); // whose upper edges belong to an outline already
  /** @type {number[]} */ const out = [];
  /** @type {(x: number, y: number) => number} */
  const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : pixels[y * width + x]);
  for (let y = 0, place = 0; y < height; y++) {
    for (let x = 0; x < width; x++, place++) {
      if (!pixels[place] || seen[place] || (y > 0 && pixels[place - width])) continue;
      const head = out.push(0) - 1;
      let [cx, cy, way] = [x, y, 0];
      do {
        if (way === 0) seen[cy * width + cx] = 1;
        cx += STEP_X[way];
        cy += STEP_Y[way];
        let turn = 0;
        if (!at(cx + RIGHT_X[way], cy + RIGHT_Y[way])) turn = 1;
        else if (at(cx + LEFT_X[way], cy + LEFT_Y[way])) turn = 3;
        if (turn) {
          out.push(cx + patch.x, cy + patch.y);
          out[head]++;
          way = (way + turn) % 4;
        }
      } while (cx !== x || cy !== y || way !== 0);
    }
  }
  return Int32Array.from(out);
}

/**
 * @param {Int32Array} outlines As `traceOutlines` makes them.
 * @param {number} cut How much of each corner is cut off, in pixels: 0 for exact edges, 0.5 for smooth ones.
 * @returns {Path2D}
 */
export function pathOf(outlines, cut) {
  const path = new Path2D();
  for (let i = 0; i < outlines.length; ) {
    const corners = outlines[i++];
    let [px, py] = [outlines[i + 2 * corners - 2], outlines[i + 2 * corners - 1]];
    for (let k = 0; k < corners; k++, i += 2) {
      const [x, y] = [outlines[i], outlines[i + 1]];
      const next = k + 1 < corners ? i + 2 : i + 2 - 2 * corners;
      if (cut === 0) {
        if (k === 0) path.moveTo(x, y);
        else path.lineTo(x, y);
      } else {
        const [ax, ay] = [x - Math.sign(x - px) * cut, y - Math.sign(y - py) * cut];
        if (k === 0) path.moveTo(ax, ay);
        else path.lineTo(ax, ay);
        path.lineTo(x + Math.sign(outlines[next] - x) * cut, y + Math.sign(outlines[next + 1] - y) * cut);
      }
      px = x;
      py = y;
    }
    path.closePath();
  }
  return path;
}
