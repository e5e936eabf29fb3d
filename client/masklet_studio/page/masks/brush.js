/** Strokes of brush and eraser, as pixels. */

/** A stroke. Points are x and y by turns. @typedef {{points: number[], radius: number, add: boolean}} Stroke */

/**
 * Paint a stroke: every pixel with its centre within the radius of the line.
 *
 * @param {Uint8Array} pixels The whole mask, changed in place.
 * @param {number} width
 * @param {number} height
 * @param {Stroke} stroke
 */
export function paintStroke(pixels, width, height, { points, radius, add }) {
  const value = add ? 1 : 0;
  const reach = Math.max(radius, 0.5);
  for (let i = 0; i < points.length; i += 2) {
    const [bx, by] = [points[i], points[i + 1]];
    const [ax, ay] = i ? [points[i - 2], points[i - 1]] : [bx, by];
    const [dx, dy] = [bx - ax, by - ay];
    const long = dx * dx + dy * dy;
    const top = Math.max(0, Math.floor(Math.min(ay, by) - reach));
    const bottom = Math.min(height - 1, Math.ceil(Math.max(ay, by) + reach));
    const left = Math.max(0, Math.floor(Math.min(ax, bx) - reach));
    const right = Math.min(width - 1, Math.ceil(Math.max(ax, bx) + reach));
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const [px, py] = [x + 0.5 - ax, y + 0.5 - ay];
        const along = long ? Math.min(1, Math.max(0, (px * dx + py * dy) / long)) : 0;
        const [ex, ey] = [px - along * dx, py - along * dy];
        if (ex * ex + ey * ey <= reach * reach) pixels[y * width + x] = value;
      }
    }
  }
}
