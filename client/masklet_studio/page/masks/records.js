/** The binary messages of a session: one record after another, each a header of 32 bytes and a mask's run-lengths. */

const HEADER = 32;

/**
 * @param {ArrayBuffer} buffer @param {number} [from] Where the first record begins.
 * @returns {import("../types.js").MaskRecord[]}
 */
export function readRecords(buffer, from = 0) {
  const view = new DataView(buffer);
  const records = [];
  for (let at = from; at < buffer.byteLength; ) {
    if (view.getUint8(at) !== 1) throw new Error(`A mask came in version ${view.getUint8(at)}; reload the page.`);
    const flags = view.getUint8(at + 1);
    const size = view.getUint32(at + 24, true);
    const length = view.getUint32(at + 28, true);
    records.push({
      object: view.getUint16(at + 2, true),
      frame: view.getUint32(at + 4, true),
      revision: view.getUint32(at + 8, true),
      iou: view.getFloat32(at + 12, true),
      score: view.getFloat32(at + 16, true),
      area: view.getUint32(at + 20, true),
      visible: (flags & 1) !== 0,
      prompted: (flags & 2) !== 0,
      edited: (flags & 4) !== 0,
      width: size >>> 16,
      height: size & 0xffff,
      counts: new Uint8Array(buffer.slice(at + HEADER, at + HEADER + length)),
    });
    at += HEADER + length;
  }
  return records;
}
