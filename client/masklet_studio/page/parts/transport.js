/** The bar under the stage: playing, the frame's number, marks, and tracking. */
import { html, observe } from "../ui.js";
import { clearMarks, mark, stop, track } from "../state/editing.js";
import { go } from "../state/opened.js";
import { toggleFollow } from "../state/keys.js";
import * as s from "../state/store.js";
import { counted, IconButton, Problem, Progress, Typed } from "./common.js";
import { Icon } from "./icons.js";

/** @param {number} to */
const goTo = (to) => {
  s.playing.value = false;
  go(to);
};

const Play = observe(() => html`<div class="group" role="group" aria-label="Playing">
  <${IconButton} icon="first" name="First frame" keys="Home" onClick=${() => goTo(0)} />
  <${IconButton} icon="back" name="One frame back" keys="←" onClick=${() => goTo(s.frame.value - 1)} />
  <${IconButton} icon=${s.playing.value ? "pause" : "play"} filled=${!s.playing.value} class="play" size=${18}
    name=${s.playing.value ? "Pause" : "Play"} keys="Space" onClick=${() => (s.playing.value = !s.playing.value)} />
  <${IconButton} icon="on" name="One frame on" keys="→" onClick=${() => goTo(s.frame.value + 1)} />
  <${IconButton} icon="last" name="Last frame" keys="End" onClick=${() => goTo(s.lastFrame.value)} />
</div>`);

const Where = observe(() => html`<div class="where">
  <label title="Go to a frame  (G)">
    <span class="unseen">Frame</span>
    <${Typed} id="frame-field" class="number" inputmode="numeric" value=${s.frame.value}
      onFocus=${(/** @type {any} */ event) => event.target.select()}
      onChange=${(/** @type {any} */ event) => {
        const to = Number.parseInt(event.target.value, 10);
        if (Number.isFinite(to)) goTo(to);
        event.target.value = String(s.frame.value);
      }} />
  </label>
  <span class="soft number">/ ${s.frames.value === null ? "…" : s.lastFrame.value}</span>
  <span class="time number">${s.clock(s.frame.value)}</span>
  <select class="speed" aria-label="Speed" title="Speed" value=${String(s.speed.value)}
    onChange=${(/** @type {any} */ event) => (s.speed.value = Number(event.target.value))}>
    ${[0.25, 0.5, 1, 2, 4].map((speed) => html`<option value=${String(speed)}>${speed}×</option>`)}
  </select>
</div>`);

/** @param {{which: "in" | "out", at: number | null, name: string, keys: string}} props */
const Mark = ({ which, at, name, keys }) => html`<button type="button" class="mark" aria-label=${name} aria-keyshortcuts=${keys}
  aria-pressed=${String(at !== null)} title=${`${name}  (${keys})`} onClick=${() => mark(which)}>
  ${which === "in" && html`<${Icon} name="in" size=${16} />`}${which === "in" ? "In" : "Out"}${which === "out" && html`<${Icon} name="out" size=${16} />`}
</button>`;

const Marks = observe(() => {
  const { in: first, out: last } = s.marks.value;
  return html`<div class="group" role="group" aria-label="Marks">
    <${Mark} which="in" at=${first} name=${first === null ? "Mark in: begin here" : `Mark in at frame ${first}`} keys="I" />
    <${Mark} which="out" at=${last} name=${last === null ? "Mark out: end here" : `Mark out at frame ${last}`} keys="O" />
    ${(first !== null || last !== null) &&
    html`<button type="button" class="range number" title="Take the marks away  (U)" onClick=${clearMarks}>
      ${first ?? 0} – ${last ?? s.lastFrame.value} <${Icon} name="close" size=${12} />
    </button>`}
  </div>`;
});

const Running = observe(() => {
  const { direction, frame, to, frames_per_second: speed } = s.tracking.value;
  const left = frame != null && to != null ? Math.abs(to - frame) : null;
  return html`<div class="tracking" role="status">
    <span class="spinner"></span>
    <span>Tracking ${direction === "backward" ? "back" : direction === "both" ? "both ways" : "forward"}</span>
    <span class="soft number">
      ${frame != null ? `frame ${frame}` : ""}${speed ? ` · ${speed.toFixed(1)} fps` : ""}${left && speed
        ? ` · ${Math.ceil(left / speed)} s left` : ""}
    </span>
    <button type="button" class="button stop" title="Stop  (Esc)" onClick=${stop}>
      <${Icon} name="stop" size=${14} filled=${true} /> Stop
    </button>
  </div>`;
});

const Track = observe(() => {
  if (s.tracking.value.running) return html`<${Running} />`;
  const prompted = s.prompts.value.size > 0 || s.anythingTracked.value;
  const at = s.frame.value;
  const several = s.objects.value.length > 1;
  return html`<div class="group track" role="group" aria-label="Tracking">
    ${several &&
    html`<select aria-label="What is tracked" title="What is tracked" value=${s.scope.value}
      onChange=${(/** @type {any} */ event) => (s.scope.value = event.target.value)}>
      <option value="all">All objects</option>
      <option value="selected">Only ${s.called(s.chosen.value) || "the selected one"}</option>
    </select>`}
    <button type="button" class="button" disabled=${!prompted || at === 0} title="Track backward from this frame  (Shift T)"
      aria-label="Track backward" onClick=${() => track("backward")}><${Icon} name="arrowLeft" size=${16} /></button>
    <button type="button" class="button" disabled=${!prompted} title="Track both ways from this frame  (Y)"
      aria-label="Track both ways" onClick=${() => track("both")}><${Icon} name="both" size=${16} /></button>
    <button type="button" class=${prompted && s.framesTracked.value <= 1 ? "button primary" : "button"}
      disabled=${!prompted || at >= s.lastFrame.value}
      title=${prompted ? "Track forward from this frame  (T)" : "Click an object in the picture first"}
      onClick=${() => track("forward")}>Track forward <${Icon} name="arrowRight" size=${16} /></button>
  </div>`;
});

const Follow = observe(() => html`<${IconButton} icon="follow" name="Picture goes along with tracking" keys="F"
  pressed=${s.follow.value} onClick=${toggleFollow} />`);

export function Transport() {
  return html`<div class="transport">
    <${Play} /><${Where} /><${Marks} />
    <div class="transport-end"><${Problem} place="track" /><${Follow} /><${Track} /></div>
  </div>`;
}
