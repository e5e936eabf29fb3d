/** The stage: one canvas with the video, and what mouse, pen and finger do on it. */
import { Component, createRef, effect, html, untracked } from "../ui.js";
import { opened } from "../state/opened.js";
import { clickAt, paintStroke, setBox } from "../state/prompts.js";
import * as s from "../state/store.js";
import { Crosshair } from "./crosshair.js";
import { drawScene, SMOOTH_BELOW } from "./draw.js";
import { View } from "./view.js";

const DRAG = 4; // CSS pixels that a pointer moves before it drags
const NEAR = 9; // CSS pixels within which a click takes a point away

export const view = new View();

/** @typedef {{kind: "press" | "box" | "pan" | "paint", x: number, y: number, button: number, moved: boolean, from?: [number, number]}} Drag */

export class Stage extends Component {
  canvas = createRef();
  /** @type {Drag | null} */ drag = null;
  /** @type {import("../types.js").Box | null} */ box = null;
  /** @type {import("../masks/brush.js").Stroke | null} */ stroke = null;
  /** @type {[number, number] | null} */ pointer = null;
  /** @type {Map<number, [number, number]>} */ fingers = new Map();
  crosshair = new Crosshair(view);
  request = 0;
  /** @type {(() => void)[]} */ ends = [];

  componentDidMount() {
    const canvas = this.canvas.current;
    this.context = canvas.getContext("2d");
    opened.redraw = () => this.redraw();
    const watch = new ResizeObserver(() => this.resize());
    watch.observe(canvas);
    canvas.addEventListener("wheel", this.wheel, { passive: false });
    this.ends = [
      () => watch.disconnect(),
      () => cancelAnimationFrame(this.request),
      effect(() => {
        const video = s.video.value;
        if (video && (video.width !== view.width || video.height !== view.height)) view.setVideo(video.width, video.height);
        s.zoom.value = view.scale;
      }),
      effect(() => {
        // Whatever the scene is made of: a change of any of it draws the stage again.
        void [s.frame.value, s.objects.value, s.selected.value, s.hidden.value, s.prompts.value, s.pending.value];
        void [s.overlay.value, s.opacity.value, s.shown.value, s.tool.value, s.brush.value, s.frames.value, s.theme.value];
        this.redraw();
      }),
    ];
    this.resize();
  }

  componentWillUnmount() {
    this.ends.forEach((end) => end());
    opened.redraw = () => {};
  }

  shouldComponentUpdate() {
    return false;
  }

  redraw() {
    if (this.request) return;
    this.request = requestAnimationFrame(() => {
      this.request = 0;
      this.draw();
    });
  }

  resize() {
    const canvas = this.canvas.current;
    const { width, height } = canvas.getBoundingClientRect();
    this.ratio = devicePixelRatio;
    canvas.width = Math.max(1, Math.round(width * this.ratio));
    canvas.height = Math.max(1, Math.round(height * this.ratio));
    view.setStage(Math.max(1, width), Math.max(1, height));
    s.zoom.value = view.scale;
    this.draw();
  }

  draw() {
    if (this.context && opened.value) untracked(() => this.drawNow());
  }

  drawNow() {
    const { frames, masks } = /** @type {import("../state/opened.js").Opened} */ (opened.value);
    const at = s.frame.value;
    frames.look(at, view.width * view.scale * (this.ratio ?? 1), s.frames.value);
    const picture = frames.get(at);
    s.waiting.value = !picture;
    // Until a picture is here the one before stays; its masks are drawn with it, so that they never lie beside it.
    if (picture) this.last = { frame: at, video: s.video.value?.id };
    const drawn = picture || this.last?.video !== s.video.value?.id ? at : (this.last?.frame ?? at);
    const bitmap = (picture ?? frames.get(drawn))?.bitmap ?? null;
    const colours = new Map(s.objects.value.map(({ object, colour }) => [object, colour]));
    const smooth = view.scale < SMOOTH_BELOW;
    /** @type {import("./draw.js").Shape[]} */ const shapes = [];
    for (const record of s.shown.value ? masks.at(drawn) : []) {
      const colour = colours.get(record.object);
      if (!colour || s.hidden.value.has(record.object)) continue;
      const path = masks.path(record, smooth);
      const selected = record.object === s.selected.value;
      if (path) shapes.push({ path, colour, selected, scale: view.width / record.width });
    }
    const colour = s.chosen.value?.colour ?? "#56b4e9";
    const painting = s.tool.value === "brush" || s.tool.value === "eraser";
    const spot = painting && this.pointer ? view.toVideo(...this.pointer) : null;
    const { crosshair } = this;
    drawScene(this.context, view, this.ratio ?? 1, {
      bitmap, shapes, colour, prompts: this.promptsAt(drawn, colours), style: s.overlay.value, opacity: s.opacity.value,
      box: this.box ?? crosshair.box, stroke: this.stroke ?? crosshair.stroke, backdrop: "rgb(128 128 128 / 12%)",
      brush: spot && { x: spot[0], y: spot[1], radius: s.brush.value, erase: s.tool.value === "eraser" },
    });
    crosshair.draw(this.context, this.ratio ?? 1);
    masks.prepare(at, (s.playing.value ? 12 : 4) * frames.direction);
  }

  /** @param {number} at @param {Map<number, string>} colours @returns {import("./draw.js").Shown[]} */
  promptsAt(at, colours) {
    if (s.playing.value) return [];
    const all = new Map([...s.prompts.value, ...s.pending.value]);
    return [...all]
      .filter(([, prompt]) => (prompt.frame === at || s.live.value) && !s.hidden.value.has(prompt.object))
      .map(([key, prompt]) => ({
        prompt,
        colour: colours.get(prompt.object) ?? "#56b4e9",
        selected: prompt.object === s.selected.value || prompt.object === 0,
        sending: s.pending.value.has(key),
      }))
      .sort((a, b) => Number(a.selected) - Number(b.selected));
  }

  /** @param {MouseEvent} event @returns {[number, number]} */
  spot(event) {
    const { left, top } = this.canvas.current.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  /** @param {WheelEvent} event */
  wheel = (event) => {
    event.preventDefault();
    const [x, y] = this.spot(event);
    if (event.shiftKey && !event.ctrlKey) view.pan(-(event.deltaX || event.deltaY), 0);
    else view.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : event.ctrlKey ? 0.01 : 0.002)), x, y);
    s.zoom.value = view.scale;
    this.redraw();
  };

  /** @param {PointerEvent} event */
  down = (event) => {
    const [x, y] = this.spot(event);
    this.canvas.current.removeAttribute("tabindex"); // the focus is for keys: with a mouse, arrows change the frame
    this.canvas.current.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") this.fingers.set(event.pointerId, [x, y]);
    const tool = s.tool.value;
    if (this.fingers.size > 1 || event.button === 1 || tool === "hand") {
      this.drag = { kind: "pan", x, y, button: event.button, moved: false };
      this.stroke = this.box = null;
    } else if (tool === "brush" || tool === "eraser") {
      const add = (tool === "brush") !== (event.button === 2);
      this.drag = { kind: "paint", x, y, button: event.button, moved: false };
      this.stroke = { points: view.toVideo(x, y), radius: s.brush.value, add };
    } else if (event.button === 0 || event.button === 2) {
      this.drag = { kind: tool === "box" && event.button === 0 ? "box" : "press", x, y, button: event.button, moved: false, from: view.toVideo(x, y) };
    }
    s.playing.value = false;
    this.redraw();
  };

  /** @param {PointerEvent} event */
  move = (event) => {
    const [x, y] = this.spot(event);
    const before = this.fingers.get(event.pointerId) ?? this.pointer ?? [x, y];
    this.pointer = [x, y];
    const { drag } = this;
    if (drag && Math.hypot(x - drag.x, y - drag.y) >= DRAG) drag.moved = true;
    if (drag?.kind === "pan") {
      if (this.fingers.size > 1) this.pinch(event.pointerId, [x, y]);
      else view.pan(x - before[0], y - before[1]);
      s.zoom.value = view.scale;
    } else if (drag?.kind === "paint") {
      for (const part of event.getCoalescedEvents?.() ?? [event]) this.stroke?.points.push(...view.toVideo(...this.spot(part)));
    } else if (drag?.moved && drag.button === 0) {
      drag.kind = "box";
      this.box = this.boxTo(drag, x, y);
    }
    if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, [x, y]);
    this.redraw();
  };

  /** Two fingers: their middle pans, their distance zooms. @param {number} id @param {[number, number]} now */
  pinch(id, now) {
    const before = /** @type {[number, number]} */ (this.fingers.get(id));
    const other = [...this.fingers].find(([finger]) => finger !== id)?.[1];
    if (!before || !other) return;
    const apart = Math.hypot(before[0] - other[0], before[1] - other[1]) || 1;
    view.zoom(Math.hypot(now[0] - other[0], now[1] - other[1]) / apart, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    view.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  }

  /** @param {Drag} drag @param {number} x @param {number} y @returns {import("../types.js").Box} */
  boxTo(drag, x, y) {
    const [ax, ay] = view.within(...(drag.from ?? view.toVideo(drag.x, drag.y)));
    const [bx, by] = view.within(...view.toVideo(x, y));
    return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  }

  /** @param {PointerEvent} event */
  up = (event) => {
    const [x, y] = this.spot(event);
    const { drag, box, stroke } = this;
    this.fingers.delete(event.pointerId);
    this.canvas.current.tabIndex = 0;
    this.drag = this.box = this.stroke = null;
    this.redraw();
    if (!drag || event.type === "pointercancel") return;
    if (stroke) paintStroke(stroke);
    else if (box && box[2] - box[0] >= 1 && box[3] - box[1] >= 1) setBox(box);
    else if (drag.kind === "press" && !drag.moved) {
      const [vx, vy] = view.toVideo(x, y);
      if (!view.contains(vx, vy)) return;
      const out = drag.button === 2 || event.altKey || event.ctrlKey;
      clickAt(vx, vy, out ? 0 : 1, NEAR / view.scale);
    }
  };

  leave = () => {
    if (!this.drag) this.pointer = null;
    this.redraw();
  };

  /** @param {KeyboardEvent} event */
  key = (event) => {
    if (!this.crosshair.key(event)) return;
    event.preventDefault();
    event.stopPropagation();
    this.redraw();
  };

  focus = () => {
    this.crosshair.begin();
    this.redraw();
  };

  blur = () => {
    this.crosshair.end();
    this.redraw();
  };

  render() {
    return html`<canvas
      class="stage-canvas"
      ref=${this.canvas}
      tabindex="0"
      role="application"
      aria-label="The video. Arrows move a crosshair, Enter clicks there, Shift Enter takes away."
      onKeyDown=${this.key}
      onFocus=${this.focus}
      onBlur=${this.blur}
      onPointerDown=${this.down}
      onPointerMove=${this.move}
      onPointerUp=${this.up}
      onPointerCancel=${this.up}
      onPointerLeave=${this.leave}
      onContextMenu=${(/** @type {Event} */ event) => event.preventDefault()}
    ></canvas>`;
  }
}

/** @param {number} factor 0 fits the whole video. */
export function zoomBy(factor) {
  if (factor) view.zoom(factor);
  else view.fit();
  s.zoom.value = view.scale;
  opened.redraw();
}
