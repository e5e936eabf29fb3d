/** The timeline: one canvas that shows all frames of the clip, and moves the playhead. */
import { Component, createRef, effect, html, untracked } from "../ui.js";
import { go } from "../state/opened.js";
import * as s from "../state/store.js";
import { drawTimeline, frameAt, LANE, RULER } from "./draw.js";

const MOST_LANES = 6; // shown without scrolling
const LEAST_LANES = 3; // room kept, so that the picture does not move when the first objects are added
const LEAST = 12; // frames in view
const ENLARGED = [3000, 1.4]; // as the style sheet enlarges what is read on screens that the system does not enlarge

/** @type {Map<string, Uint8Array>} */ const decoded = new Map();

/** @param {string} text base64 */
function bytesOf(text) {
  let bytes = decoded.get(text);
  if (!bytes) {
    if (decoded.size > 64) decoded.clear();
    bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    decoded.set(text, bytes);
  }
  return bytes;
}

export class Timeline extends Component {
  canvas = createRef();
  /** @type {(() => void)[]} */ ends = [];
  request = 0;
  tall = 60;
  from = 0;
  to = 1;
  whole = true;
  scroll = 0;
  /** @type {number | null} */ hover = null;
  pressed = false;

  /** CSS pixels for a pixel that is drawn. */
  get enlarged() {
    return innerWidth >= ENLARGED[0] ? ENLARGED[1] : 1;
  }

  /** @type {{scheme: string, colours: import("./draw.js").Colours} | null} */ known = null;
  /** @type {import("./draw.js").Timeline | null} */ drawn = null;

  componentDidMount() {
    const canvas = this.canvas.current;
    const watch = new ResizeObserver(() => this.redraw());
    watch.observe(canvas);
    canvas.addEventListener("wheel", this.wheel, { passive: false });
    this.ends = [
      () => watch.disconnect(),
      () => cancelAnimationFrame(this.request),
      effect(() => {
        const rows = Math.max(LEAST_LANES, Math.min(MOST_LANES, s.objects.value.length));
        this.tall = RULER + rows * LANE + 4;
        void [s.frames.value, s.selected.value, s.hidden.value, s.lanes.value, s.prompts.value, s.pending.value];
        void [s.marks.value, s.tracking.value, s.review.value, s.theme.value, s.scheme.value];
        this.redraw();
      }),
      effect(() => {
        this.follow(s.frame.value);
        canvas.setAttribute("aria-valuenow", String(s.frame.value));
        canvas.setAttribute("aria-valuemax", String(s.lastFrame.value));
        this.redraw();
      }),
      effect(() => {
        void s.video.value?.id;
        this.whole = true;
        this.scroll = 0;
      }),
    ];
  }

  componentWillUnmount() {
    this.ends.forEach((end) => end());
  }

  shouldComponentUpdate() {
    return false;
  }

  redraw() {
    this.request ||= requestAnimationFrame(() => {
      this.request = 0;
      untracked(() => this.draw());
    });
  }

  /** The part in view goes with the playhead. @param {number} frame */
  follow(frame) {
    if (this.whole || this.pressed) return;
    const span = this.to - this.from;
    if (frame < this.from || frame >= this.to - span * 0.05) this.show(frame - span * 0.2, span);
  }

  /** @param {number} from @param {number} span */
  show(from, span) {
    const frames = s.lastFrame.value + 1;
    span = Math.min(frames, Math.max(Math.min(LEAST, frames), span));
    this.from = Math.min(frames - span, Math.max(0, from));
    this.to = this.from + span;
    this.whole = span >= frames;
    this.redraw();
  }

  /** @returns {import("./draw.js").Row[]} */
  rows() {
    const prompts = [...new Map([...s.prompts.value, ...s.pending.value]).values()];
    return s.objects.value.map((one) => {
      const { object, colour } = one;
      const lane = s.lanes.value.get(object) ?? null;
      return {
        object, name: s.called(one), colour, lane,
        selected: object === s.selected.value,
        hidden: s.hidden.value.has(object),
        ious: lane?.ious ? bytesOf(lane.ious) : new Uint8Array(0),
        prompts: prompts.filter((prompt) => prompt.object === object && (prompt.points.length || prompt.box || prompt.has_mask)).map(({ frame }) => frame),
        doubts: s.review.value.filter((doubt) => doubt.object === object).map(({ frame }) => frame),
      };
    });
  }

  /** The colours of the style sheet, as the theme has them now. @returns {import("./draw.js").Colours} */
  colours() {
    const scheme = `${s.theme.value} ${s.scheme.value}`;
    if (this.known?.scheme === scheme) return this.known.colours;
    const { style } = this.canvas.current;
    const computed = getComputedStyle(this.canvas.current);
    const colour = (/** @type {string} */ name) => {
      style.color = `var(--${name})`; // a canvas knows no variables; the computed colour it does
      return computed.color;
    };
    const colours = {
      ruler: colour("panel"), line: colour("line"), text: colour("soft"), faint: colour("faint"), head: colour("accent-strong"),
      lane: colour("panel"), laneOn: colour("raised"), warn: colour("warn"), good: colour("good"),
      marked: colour("shade"), ink: colour("text"),
    };
    this.known = { scheme, colours };
    return colours;
  }

  draw() {
    const canvas = this.canvas.current;
    const larger = this.enlarged;
    canvas.style.height = `${this.tall * larger}px`;
    const box = canvas.getBoundingClientRect();
    const [width, height] = [box.width / larger, box.height / larger];
    const ratio = devicePixelRatio * larger;
    const [wide, tall] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wide || canvas.height !== tall) [canvas.width, canvas.height] = [wide, tall];
    const frames = s.lastFrame.value + 1;
    if (this.whole) [this.from, this.to] = [0, frames];
    const rows = this.rows();
    this.scroll = Math.max(0, Math.min(this.scroll, RULER + rows.length * LANE - height + 4));
    this.drawn = {
      width, height, frames, rows,
      gutter: Math.min(180, Math.max(120, width * 0.11)),
      from: this.from, to: this.to, frame: s.frame.value, hover: this.hover, scroll: this.scroll,
      marks: s.marks.value, tracking: s.tracking.value, clock: s.clock,
      colours: this.colours(),
    };
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    drawTimeline(context, this.drawn);
  }

  /** @param {MouseEvent} event @returns {[number, number]} */
  spot(event) {
    const { left, top } = this.canvas.current.getBoundingClientRect();
    return [(event.clientX - left) / this.enlarged, (event.clientY - top) / this.enlarged];
  }

  /** @param {PointerEvent} event */
  down = (event) => {
    const [x, y] = this.spot(event);
    if (!this.drawn || event.button !== 0) return;
    const row = y > RULER ? this.drawn.rows[Math.floor((y - RULER + this.scroll) / LANE)] : null;
    if (row) s.selected.value = row.object;
    if (x < this.drawn.gutter - 8) return;
    this.canvas.current.setPointerCapture(event.pointerId);
    this.pressed = true;
    s.playing.value = false;
    go(frameAt(this.drawn, x));
  };

  /** @param {PointerEvent} event */
  move = (event) => {
    if (!this.drawn) return;
    const frame = frameAt(this.drawn, this.spot(event)[0]);
    this.hover = frame >= 0 && frame < this.drawn.frames && frame >= this.drawn.from ? frame : null;
    if (this.pressed) go(frame);
    const doubt = s.review.value.find((one) => this.hover !== null && one.frame === this.hover);
    this.canvas.current.title = this.hover === null ? "" : `Frame ${this.hover} · ${s.clock(this.hover)}${doubt ? `\n${doubt.why}` : ""}`;
    this.redraw();
  };

  up = () => {
    this.pressed = false;
  };

  leave = () => {
    this.hover = null;
    this.redraw();
  };

  /** @param {WheelEvent} event */
  wheel = (event) => {
    if (!this.drawn) return;
    event.preventDefault();
    const span = this.to - this.from;
    const overflow = RULER + this.drawn.rows.length * LANE > this.drawn.height;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      return this.show(this.from + ((event.deltaX || event.deltaY) / this.drawn.width) * span, span);
    }
    if (overflow && !event.ctrlKey) this.scroll += event.deltaY;
    else {
      const at = Math.max(0, (this.spot(event)[0] - this.drawn.gutter) / (this.drawn.width - this.drawn.gutter));
      const next = span * Math.exp(event.deltaY * 0.0025);
      this.show(this.from + at * (span - next), next);
    }
    this.redraw();
  };

  render() {
    return html`<canvas
      class="timeline-canvas"
      ref=${this.canvas}
      tabindex="0"
      role="slider"
      aria-label="Timeline: the frame that is shown. Left and right move it."
      aria-valuemin="0"
      onPointerDown=${this.down}
      onPointerMove=${this.move}
      onPointerUp=${this.up}
      onPointerCancel=${this.up}
      onPointerLeave=${this.leave}
    ></canvas>`;
  }
}
