// Decodes masks, as the comment of MaskEncoding in protos/masklet/v1/common.proto describes it.

/** Lengths of runs of background and foreground in turns, down the columns. */
export function runLengths(data: Uint8Array): number[] {
  const lengths: number[] = [];
  let i = 0;
  while (i < data.length) {
    let value = 0;
    let shift = 0;
    let group: number;
    do {
      group = data[i++]! - 48;
      value += (group & 31) * 2 ** shift;
      shift += 5;
    } while (group & 32);
    if (group & 16) value -= 2 ** shift;
    if (lengths.length > 2) value += lengths[lengths.length - 2]!;
    lengths.push(value);
  }
  return lengths;
}

export interface Mask {
  data: Uint8Array;
  height: number;
  width: number;
}

/** The mask, row by row: 1 is foreground, 0 is background. */
export function decodeMask({ data, height, width }: Mask): Uint8Array {
  const pixels = new Uint8Array(height * width);
  let pixel = 0;
  let isForeground = false;
  for (const length of runLengths(data)) {
    if (isForeground) {
      for (let i = pixel; i < pixel + length; i++) {
        pixels[(i % height) * width + Math.floor(i / height)] = 1;
      }
    }
    pixel += length;
    isForeground = !isForeground;
  }
  return pixels;
}

/** A line of text: the number of foreground pixels, and the smallest box around them. */
export function describe(mask: Mask): string {
  const pixels = decodeMask(mask);
  let count = 0;
  let [x0, y0, x1, y1] = [mask.width, mask.height, 0, 0];
  pixels.forEach((value, i) => {
    if (!value) return;
    const [x, y] = [i % mask.width, Math.floor(i / mask.width)];
    count++;
    [x0, y0] = [Math.min(x0, x), Math.min(y0, y)];
    [x1, y1] = [Math.max(x1, x + 1), Math.max(y1, y + 1)];
  });
  return count ? `${count} pixels in ${x0},${y0},${x1},${y1}` : "not in the picture";
}
