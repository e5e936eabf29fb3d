/** What keys do on the stage: a crosshair takes the place of the mouse while the stage has the focus. */
import { clickAt, paintStroke, setBox } from "../state/prompts.js";
import * as s from "../state/store.js";

const STEP = 12; // CSS pixels that an arrow moves it
const FAR = 72; // with Shift
const FINE = 1; // with Ctrl
const EDGE = 40; // CSS pixels of the stage that stay between it and the edge
const NEAR = 9; // CSS pixels within which Enter takes a point away

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Crosshair {
  /** Where it is, in pixels of the video; null where the stage has no focus. @type {[number, number] | null} */ at = null;
  /** The first corner of a box that is being drawn. @type {[number, number] | null} */ corner = null;
  /** @type {import("../masks/brush.js").Stroke | null} */ stroke = null;
  /** Where it was when the focus left. @type {[number, number] | null} */ was = null;

  /** @param {import("./view.js").View} view */
  constructor(view) {
    this.view = view;
  }

  begin() {
    const { view } = this;
    this.at = view.within(...(this.was ?? view.toVideo(view.stageWidth / 2, view.stageHeight / 2)));
    this.speak();
  }

  end() {
    this.was = this.at ?? this.was;
    this.at = this.corner = this.stroke = null;
    s.spoken.value = "";
  }

  /** The box from its corner to the crosshair. @returns {import("../types.js").Box | null} */
  get box() {
    if (!this.at || !this.corner) return null;
    const [[ax, ay], [bx, by]] = [this.corner, this.at];
    return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  }

  /** @param {KeyboardEvent} event @returns {boolean} Whether the key was one of the crosshair's. */
  key(event) {
    if (!this.at || event.altKey) return false;
    const arrow = ARROWS[event.key];
    if (arrow) this.move(arrow, event.shiftKey ? FAR : event.ctrlKey || event.metaKey ? FINE : STEP);
    else if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) this.enter(!event.shiftKey);
    else if (event.key === "Escape" && (this.corner || this.stroke)) this.corner = this.stroke = null;
    else return false;
    return true;
  }

  /** @param {[number, number]} direction @param {number} step */
  move([dx, dy], step) {
    const { view } = this;
    const [x, y] = view.toStage(.../** @type {[number, number]} */ (this.at));
    this.at = view.within(...view.toVideo(x + dx * step, y + dy * step));
    this.stroke?.points.push(...this.at);
    const [sx, sy] = view.toStage(...this.at);
    const past = (/** @type {number} */ at, /** @type {number} */ size) => Math.max(0, EDGE - at) - Math.max(0, at - (size - EDGE));
    const [px, py] = [past(sx, view.stageWidth), past(sy, view.stageHeight)];
    if ((px || py) && !view.fitted) view.pan(px, py);
    this.speak();
  }

  /** @param {boolean} add */
  enter(add) {
    const at = /** @type {[number, number]} */ (this.at);
    const tool = s.tool.value;
    s.playing.value = false;
    if (tool === "box") {
      const { box } = this;
      this.corner = box ? null : at;
      if (box && box[2] - box[0] >= 1 && box[3] - box[1] >= 1) setBox(box);
    } else if (tool === "brush" || tool === "eraser") {
      if (this.stroke) paintStroke(this.stroke);
      this.stroke = this.stroke ? null : { points: [...at], radius: s.brush.value, add: (tool === "brush") === add };
    } else clickAt(...at, add ? 1 : 0, NEAR / this.view.scale);
  }

  speak() {
    if (this.at) s.spoken.value = `${Math.round(this.at[0])}, ${Math.round(this.at[1])}`;
  }

  /** @param {CanvasRenderingContext2D} context @param {number} ratio Device pixels for a CSS pixel. */
  draw(context, ratio) {
    if (!this.at) return;
    const [x, y] = this.view.toStage(...this.at);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    for (const [width, colour] of /** @type {[number, string][]} */ ([[4, "#000"], [2, "#fff"]])) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.beginPath();
      for (const [dx, dy] of Object.values(ARROWS)) {
        context.moveTo(x + 5 * dx, y + 5 * dy);
        context.lineTo(x + 18 * dx, y + 18 * dy);
      }
      context.stroke();
    }
  }
}
