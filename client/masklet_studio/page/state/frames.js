/**
 * The pictures of a video, by number. Two stores, both bounded: decoded pictures (a few, to draw at once) and their
 * encoded bytes (some hundreds, decoded in a few milliseconds). What is round the playhead is fetched ahead.
 */

const WIDTHS = [320, 640, 1280, 1920];
const FETCHES = 4; // at once
const AHEAD = 24;
const BEHIND = 6;

/** @typedef {{bitmap: ImageBitmap, width: number}} Picture */

/** The width to ask for, so that a picture is sharp. @param {number} needed Device pixels. @param {number} full The video's. */
export function widthFor(needed, full) {
  return WIDTHS.find((width) => width >= needed && width < full) ?? full;
}

export class FrameCache {
  /**
   * @param {{url: (frame: number, width: number | "full") => string, full: number, height: number, changed: () => void,
   *   failed: (message: string, frame: number) => void, pictureBytes?: number, blobBytes?: number}} options
   */
  constructor({ url, full, height, changed, failed, pictureBytes = 160 << 20, blobBytes = 64 << 20 }) {
    this.url = url;
    this.full = full;
    this.aspect = height / full;
    this.changed = changed;
    this.failed = failed;
    this.pictureBytes = pictureBytes;
    this.blobBytes = blobBytes;
    /** @type {Map<number, Picture>} */ this.pictures = new Map(); // oldest use first
    /** @type {Map<string, Blob>} */ this.blobs = new Map();
    /** @type {Map<string, AbortController>} */ this.running = new Map();
    /** @type {Set<string>} */ this.broken = new Set();
    this.blobsHeld = 0;
    this.width = WIDTHS[2];
    this.frame = 0;
    this.direction = 1;
    this.last = Number.MAX_SAFE_INTEGER;
    this.closed = false;
  }

  /**
   * Say what is looked at.
   *
   * @param {number} frame @param {number} needed Device pixels across the whole picture.
   * @param {number | null} frames How many frames there are, null where that is not known.
   */
  look(frame, needed, frames) {
    const width = widthFor(needed, this.full);
    if (frame !== this.frame) this.direction = frame < this.frame && this.frame - frame < AHEAD ? -1 : 1;
    this.last = (frames ?? Number.MAX_SAFE_INTEGER) - 1;
    this.frame = frame;
    this.width = width;
    this.next();
  }

  /** @param {number} frame @returns {Picture | null} */
  get(frame) {
    const picture = this.pictures.get(frame);
    if (!picture) return null;
    this.pictures.delete(frame);
    this.pictures.set(frame, picture);
    return picture;
  }

  /** How many frames after this one can be drawn at once. @param {number} frame */
  ahead(frame) {
    let count = 0;
    while (this.pictures.has(frame + count + 1)) count++;
    return count;
  }

  get room() {
    const each = this.width * this.width * this.aspect * 4;
    return Math.max(4, Math.floor(this.pictureBytes / each));
  }

  /** @returns {Generator<number>} */
  *wanted() {
    yield this.frame;
    const ahead = Math.min(AHEAD, Math.floor(this.room * 0.7));
    const behind = Math.min(BEHIND, Math.floor(this.room * 0.2));
    for (let n = 1; n <= ahead; n++) {
      yield this.frame + n * this.direction;
      if (n <= behind) yield this.frame - n * this.direction;
    }
  }

  next() {
    const wanted = [...this.wanted()].filter((frame) => frame >= 0 && frame <= this.last);
    const keys = new Set(wanted.map((frame) => `${frame}@${this.width}`));
    for (const [key, controller] of this.running) if (!keys.has(key)) controller.abort();
    for (const frame of wanted) {
      const key = `${frame}@${this.width}`;
      if (this.running.has(key) || this.broken.has(key) || (this.pictures.get(frame)?.width ?? 0) >= this.width) continue;
      // What is looked at does not wait for what may be looked at later.
      if (this.running.size >= (frame === this.frame ? 2 * FETCHES : FETCHES)) return;
      this.load(frame, this.width, key);
    }
  }

  /** @param {number} frame @param {number} width @param {string} key */
  async load(frame, width, key) {
    const controller = new AbortController();
    this.running.set(key, controller);
    try {
      const blob = this.blobs.get(key) ?? (await this.fetch(frame, width, controller.signal));
      const bitmap = await createImageBitmap(blob);
      if (this.closed) return bitmap.close();
      this.keepBlob(key, blob);
      this.pictures.get(frame)?.bitmap.close();
      this.pictures.delete(frame);
      this.pictures.set(frame, { bitmap, width });
      this.trim();
      this.changed();
    } catch (error) {
      if (controller.signal.aborted || this.closed) return;
      this.broken.add(key);
      this.failed(error instanceof Error ? error.message : String(error), frame);
    } finally {
      this.running.delete(key);
      if (!this.closed) queueMicrotask(() => this.next());
    }
  }

  /** @param {number} frame @param {number} width @param {AbortSignal} signal */
  async fetch(frame, width, signal) {
    const response = await fetch(this.url(frame, width >= this.full ? "full" : width), { signal });
    if (response.ok) return response.blob();
    const told = await response.json().catch(() => null);
    throw new Error(told?.error?.message ?? `The server answered ${response.status}.`);
  }

  /** @param {string} key @param {Blob} blob */
  keepBlob(key, blob) {
    if (!this.blobs.delete(key)) this.blobsHeld += blob.size;
    this.blobs.set(key, blob);
    for (const [oldest, old] of this.blobs) {
      if (this.blobsHeld <= this.blobBytes) return;
      this.blobs.delete(oldest);
      this.blobsHeld -= old.size;
    }
  }

  trim() {
    for (const [frame, { bitmap }] of this.pictures) {
      if (this.pictures.size <= this.room) return;
      if (frame === this.frame) continue;
      bitmap.close();
      this.pictures.delete(frame);
    }
  }

  /** Try again what failed, as after the server came back. */
  retry() {
    this.broken.clear();
    this.next();
  }

  close() {
    this.closed = true;
    this.running.forEach((controller) => controller.abort());
    this.pictures.forEach(({ bitmap }) => bitmap.close());
    this.pictures.clear();
    this.blobs.clear();
  }
}
