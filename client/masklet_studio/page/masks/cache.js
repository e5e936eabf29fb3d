/**
 * The masks that the page holds: run-lengths of the frames round the playhead, outlines of those that were drawn.
 * Both are bounded, so that a clip of 10,000 frames takes no more memory than one of 500.
 */
import { pathOf } from "./contour.js";

/** @typedef {import("../types.js").MaskRecord} MaskRecord */
/** @typedef {{outlines: Int32Array, smooth: Path2D | null, exact: Path2D | null}} Shape */

export const CHUNK = 50; // frames asked for at once
const OVERHEAD = 200; // bytes of a record beside its run-lengths

export class MaskCache {
  /**
   * @param {{ask: (from: number, to: number) => Promise<unknown>, changed: () => void, bytes?: number,
   *   shapes?: number}} options `ask` asks the gateway for masks; `changed` is called when more can be drawn.
   */
  constructor({ ask, changed, bytes = 48 << 20, shapes = 400 }) {
    this.ask = ask;
    this.changed = changed;
    this.maxBytes = bytes;
    this.maxShapes = shapes;
    /** @type {Map<number, Map<number, MaskRecord>>} */ this.frames = new Map();
    /** @type {Map<MaskRecord, Shape | null>} */ this.shapes = new Map(); // null while the worker is at it
    /** @type {Map<number, "asked" | "here">} */ this.chunks = new Map();
    this.bytes = 0;
    this.drawn = 0; // masks whose outlines came, in all
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    /** @type {Map<number, (reply: any) => void>} */ this.waiting = new Map();
    this.count = 0;
    this.worker.onmessage = ({ data }) => {
      this.waiting.get(data.id)?.(data);
      this.waiting.delete(data.id);
    };
  }

  /** @param {any} job @returns {Promise<any>} */
  work(job) {
    const id = ++this.count;
    return new Promise((resolve) => {
      this.waiting.set(id, resolve);
      this.worker.postMessage({ id, ...job });
    });
  }

  /** @param {MaskRecord} record */
  put(record) {
    let frame = this.frames.get(record.frame);
    if (!frame) this.frames.set(record.frame, (frame = new Map()));
    const old = frame.get(record.object);
    if (old && old.revision > record.revision && !this.stale.has(old)) return;
    if (old) {
      const shape = this.shapes.get(old);
      this.drop(record.frame, old);
      if (shape) this.previous.set(record, shape);
    }
    frame.set(record.object, record);
    this.bytes += record.counts.length + OVERHEAD;
  }

  /** The outline that is drawn until that of a newer mask is known. @type {WeakMap<MaskRecord, Shape>} */
  previous = new WeakMap();
  /** Void, and drawn until the gateway answered, so that nothing flickers. @type {Set<MaskRecord>} */ stale = new Set();

  /** @param {number} frame @param {MaskRecord} record */
  drop(frame, record) {
    this.frames.get(frame)?.delete(record.object);
    this.shapes.delete(record);
    this.stale.delete(record);
    this.bytes -= record.counts.length + OVERHEAD;
  }

  /**
   * The masks of a frame, in the order of objects; what is not here is asked for.
   *
   * @param {number} frame
   * @returns {MaskRecord[]}
   */
  at(frame) {
    this.want(frame);
    return [...(this.frames.get(frame)?.values() ?? [])].sort((a, b) => a.object - b.object);
  }

  /** @param {number} frame @param {number} object */
  get(frame, object) {
    return this.frames.get(frame)?.get(object) ?? null;
  }

  /** @param {number} frame */
  want(frame) {
    const chunk = Math.floor(frame / CHUNK);
    if (this.chunks.has(chunk)) return;
    this.chunks.set(chunk, "asked");
    this.ask(chunk * CHUNK, chunk * CHUNK + CHUNK - 1).then(
      () => {
        if (this.chunks.get(chunk) === "asked") this.chunks.set(chunk, "here");
        for (const old of this.stale) if (Math.floor(old.frame / CHUNK) === chunk) this.drop(old.frame, old);
        this.trim(frame);
        this.changed();
      },
      () => this.chunks.delete(chunk),
    );
  }

  /**
   * The outline of a mask, at once where it is known; else the one before it, and `changed` is called when it came.
   *
   * @param {MaskRecord} record @param {boolean} smooth
   * @returns {Path2D | null}
   */
  path(record, smooth) {
    let shape = this.shapes.get(record);
    if (shape === undefined) this.trace(record);
    shape ??= this.previous.get(record) ?? null;
    if (!shape) return null;
    if (smooth) return (shape.smooth ??= pathOf(shape.outlines, 0.5));
    return (shape.exact ??= pathOf(shape.outlines, 0));
  }

  /** Have the worker find the outline of a mask. @param {MaskRecord} record */
  async trace(record) {
    this.shapes.set(record, null);
    this.trimShapes();
    const { counts, width, height } = record;
    const reply = await this.work({ counts, width, height });
    if (!this.shapes.has(record)) return;
    this.shapes.set(record, { outlines: reply.outlines ?? new Int32Array(0), smooth: null, exact: null });
    this.previous.delete(record);
    this.drawn++;
    this.changed();
  }

  /** Until all masks of a frame can be drawn. @param {number} frame */
  async settle(frame) {
    await Promise.all([...(this.frames.get(frame)?.values() ?? [])].map((record) => this.trace(record)));
  }

  /** Give up all frames before one. @param {number} frame */
  keepFrom(frame) {
    for (const [old, records] of this.frames) {
      if (old >= frame) return;
      records.forEach((record) => this.drop(old, record));
      this.frames.delete(old);
    }
  }

  /** Outlines that will be drawn soon. @param {number} frame @param {number} ahead */
  prepare(frame, ahead) {
    const step = Math.sign(ahead) || 1;
    for (let n = 1; n <= Math.abs(ahead); n++) {
      const soon = frame + n * step;
      if (soon < 0) return;
      this.want(soon);
      this.frames.get(soon)?.forEach((record) => this.path(record, true));
    }
  }

  /** The masks of an object from one frame to another are void. @param {number} object @param {number} from @param {number} to */
  forget(object, from, to) {
    for (const [frame, records] of this.frames) {
      const record = frame >= from && frame <= to ? records.get(object) : null;
      if (record) this.stale.add(record);
    }
    for (const chunk of [...this.chunks.keys()]) {
      if (chunk * CHUNK <= to && chunk * CHUNK + CHUNK > from) this.chunks.delete(chunk);
    }
    this.changed();
  }

  /** All masks are void: the gateway may have begun anew. */
  renew() {
    this.frames.forEach((records) => records.forEach((record) => this.stale.add(record)));
    this.chunks.clear();
    this.changed();
  }

  /** Give up the frames farthest from the playhead. @param {number} near */
  trim(near) {
    if (this.bytes <= this.maxBytes) return;
    const far = [...this.frames.keys()].sort((a, b) => Math.abs(b - near) - Math.abs(a - near));
    for (const frame of far) {
      if (this.bytes <= this.maxBytes * 0.8) return;
      this.frames.get(frame)?.forEach((record) => this.drop(frame, record));
      this.frames.delete(frame);
      this.chunks.delete(Math.floor(frame / CHUNK));
    }
  }

  trimShapes() {
    for (const record of this.shapes.keys()) {
      if (this.shapes.size <= this.maxShapes) return;
      this.shapes.delete(record);
    }
  }

  /** @param {MaskRecord | null} record @param {number} width @param {number} height @param {import("./brush.js").Stroke} stroke */
  async paint(record, width, height, stroke) {
    const counts = record?.counts ?? new Uint8Array(0);
    const reply = await this.work({ counts, width: record?.width ?? width, height: record?.height ?? height, stroke });
    if (reply.error) throw new Error(reply.error);
    return reply.counts;
  }

  close() {
    this.worker.terminate();
  }
}
