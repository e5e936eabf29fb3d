/** The panel at the right: objects, the selected one, how masks look, and what to check. */
import { html, observe } from "../ui.js";
import { copyToNext, deleteMasks, exchange, nextDoubtful } from "../state/editing.js";
import { go } from "../state/opened.js";
import { addObject, changeObject, clearPrompts, removeObject } from "../state/prompts.js";
import { setOverlay, STYLES } from "../state/keys.js";
import * as s from "../state/store.js";
import { counted, IconButton, Problem, Typed } from "./common.js";
import { Icon } from "./icons.js";

/** @param {number} object */
function toggle(object) {
  const hidden = new Set(s.hidden.value);
  if (!hidden.delete(object)) hidden.add(object);
  s.hidden.value = hidden;
}

const Row = observe((/** @type {{one: import("../types.js").TrackedObject, number: number}} */ { one, number }) => {
  const { object, colour } = one;
  const name = s.called(one);
  const isSelected = s.selected.value === object;
  const count = s.tracked(object);
  const seen = !s.hidden.value.has(object);
  return html`<li class=${isSelected ? "object selected" : "object"} aria-current=${isSelected ? "true" : undefined}
    onClick=${() => (s.selected.value = object)}>
    <label class="swatch" title="Colour">
      <input type="color" aria-label=${`Colour of ${name}`} value=${colour}
        onChange=${(/** @type {any} */ event) => {
          event.target.blur(); // the keys move the picture again
          changeObject(object, { colour: event.target.value });
        }} />
    </label>
    <${Typed} class="object-name" aria-label=${`Name of object ${number}`} value=${one.name} placeholder=${name} spellcheck=${false}
      onFocus=${() => (s.selected.value = object)}
      onChange=${(/** @type {any} */ event) => changeObject(object, { name: event.target.value })} />
    ${s.lost.value.has(object) && html`<span class="object-lost" title="Not in the picture now">lost</span>`}
    <span class="object-count number" title=${counted(count, "frame with a mask", "frames with masks")}>${count > 1 ? count : ""}</span>
    ${number <= 9 && html`<kbd title=${`Press ${number} to select it`}>${number}</kbd>`}
    <${IconButton} icon=${seen ? "eye" : "eyeOff"} size=${16} name=${seen ? `Hide ${name}` : `Show ${name}`} pressed=${!seen}
      onClick=${() => toggle(object)} />
    <${IconButton} icon="trash" size=${15} name=${`Delete ${name}`} keys="Shift Delete" onClick=${() => removeObject(object)} />
  </li>`;
});

const Objects = observe(() => html`<section class="panel-section" aria-label="Objects">
  <header class="panel-head">
    <h2>Objects</h2>
    <button type="button" class="button small" title="Add an object  (A)" onClick=${addObject}>
      <${Icon} name="plus" size=${14} /> Add
    </button>
  </header>
  <${Problem} place="objects" />
  ${s.objects.value.length
    ? html`<ol class="objects">
        ${s.objects.value.map((one, n) => html`<${Row} key=${one.object} one=${one} number=${n + 1} />`)}
      </ol>`
    : html`<p class="empty">No objects yet. Click one in the picture: the first click makes it.</p>`}
</section>`);

/** @param {{icon: string, text: string, keys?: string, onClick: () => unknown, disabled?: boolean}} props */
function Action({ icon, text, keys, onClick, disabled }) {
  return html`<button type="button" class="action" disabled=${disabled} onClick=${onClick}>
    <${Icon} name=${icon} size=${15} /><span>${text}</span>${keys && html`<kbd>${keys}</kbd>`}
  </button>`;
}

/** @param {{one: import("../types.js").TrackedObject}} props */
function Class({ one }) {
  const classes = [...new Set(s.objects.value.map((other) => other.class).filter(Boolean))];
  return html`<label class="field">
      <span>Class</span>
      <${Typed} list="classes" placeholder="such as person or car" value=${one.class ?? ""}
        onChange=${(/** @type {any} */ event) => changeObject(one.object, { class: event.target.value })} />
    </label>
    <datalist id="classes">${classes.map((name) => html`<option value=${name}></option>`)}</datalist>`;
}

const Selected = observe(() => {
  const one = s.chosen.value;
  if (!one) return null;
  if (s.live.value) {
    return html`<section class="panel-section" aria-label=${`What to do with ${s.called(one)}`}>
      <header class="panel-head"><h2 class="chosen">${s.called(one)}</h2></header>
      <${Class} one=${one} />
      <div class="actions">
        <${Action} icon="trash" text="Track it no longer" keys="Shift Del" onClick=${() => removeObject(one.object)} />
      </div>
    </section>`;
  }
  const { object } = one;
  const at = s.frame.value;
  const here = s.promptOf(object, at);
  const has = (s.lanes.value.get(object)?.runs ?? []).some(([from, to]) => at >= from && at <= to);
  const others = s.objects.value.filter((other) => other.object !== object);
  const { in: first, out: last } = s.marks.value;
  return html`<section class="panel-section" aria-label=${`What to do with ${s.called(one)}`}>
    <header class="panel-head"><h2 class="chosen">${s.called(one)}</h2></header>
    <${Class} one=${one} />
    <div class="actions">
      <${Action} icon="close" text="Clear points on this frame" keys="X"
        disabled=${!here?.points.length && !here?.box && !here?.has_mask} onClick=${() => clearPrompts(object)} />
      <${Action} icon="copy" text="Copy mask to next frame" keys="C" disabled=${!has || at >= s.lastFrame.value}
        onClick=${copyToNext} />
      <${Action} icon="trash" text="Delete mask on this frame" keys="Del" disabled=${!has}
        onClick=${() => deleteMasks(object, at, at)} />
      <${Action} icon="trash" text=${first !== null || last !== null ? "Delete masks between marks" : "Delete masks from here on"}
        disabled=${!s.tracked(object)} onClick=${() => first !== null || last !== null
          ? deleteMasks(object, first ?? 0, last ?? s.lastFrame.value) : deleteMasks(object, at, s.lastFrame.value)} />
      ${others.length > 0 &&
      html`<label class="action">
        <${Icon} name="swap" size=${15} />
        <select aria-label=${`Exchange ${s.called(one)} with another object from this frame on`} value=""
          onChange=${(/** @type {any} */ event) => {
            exchange(object, Number(event.target.value));
            event.target.value = "";
          }}>
          <option value="" disabled>Exchange with …</option>
          ${others.map((other) => html`<option value=${other.object}>${s.called(other)}</option>`)}
        </select>
      </label>`}
    </div>
  </section>`;
});

const NAMES = { fill: "Fill", outline: "Outline", cutout: "Cut-out", matte: "Matte" };

const Looks = observe(() => html`<section class="panel-section" aria-label="How masks look">
  <header class="panel-head">
    <h2>Masks</h2>
    <${IconButton} icon=${s.shown.value ? "eye" : "eyeOff"} size=${16} keys="S" name=${s.shown.value ? "Hide masks" : "Show masks"}
      pressed=${!s.shown.value} onClick=${() => (s.shown.value = !s.shown.value)} />
  </header>
  <div class="segments" role="group" aria-label="Style of masks">
    ${STYLES.map(
      (style) => html`<button type="button" key=${style} aria-pressed=${String(s.overlay.value === style)}
        onClick=${() => setOverlay(style)}>${NAMES[style]}</button>`,
    )}
  </div>
  <label class="field">
    <span>Opacity</span>
    <input type="range" min="0" max="100" value=${Math.round(s.opacity.value * 100)} disabled=${s.overlay.value === "matte"}
      onInput=${(/** @type {any} */ event) => {
        s.opacity.value = Number(event.target.value) / 100;
        s.keep("opacity", s.opacity.value);
      }} />
    <span class="number">${Math.round(s.opacity.value * 100)}%</span>
  </label>
</section>`);

const SHOWN = 30;

const Review = observe(() => {
  if (s.framesTracked.value < 2) return null; // the mask of a click alone was looked at
  const doubts = s.review.value;
  const names = new Map(s.objects.value.map((one) => [one.object, s.called(one)]));
  return html`<section class="panel-section grow" aria-label="Frames to check">
    <header class="panel-head">
      <h2>To check ${doubts.length > 0 && html`<span class="badge">${doubts.length}</span>`}</h2>
      <button type="button" class="button small" disabled=${!doubts.length} title="Next doubtful frame  (N)" onClick=${nextDoubtful}>
        Next <kbd>N</kbd>
      </button>
    </header>
    ${doubts.length
      ? html`<ul class="doubts">
          ${doubts.slice(0, SHOWN).map(
            ({ frame, object, why }) => html`<li key=${`${frame}:${object}`}>
              <button type="button" aria-current=${frame === s.frame.value ? "true" : undefined} onClick=${() => {
                s.selected.value = object;
                go(frame);
              }}>
                <span class="number">${frame}</span><span class="doubt-name">${names.get(object) ?? ""}</span><span class="soft">${why}</span>
              </button>
            </li>`,
          )}
        </ul>`
      : s.tracking.value.running
        ? html`<p class="empty">Masks are checked when tracking is done.</p>`
        : html`<p class="empty"><${Icon} name="check" size=${15} /> No frame stands out. Play the video to be sure.</p>`}
  </section>`;
});

export function Panel() {
  return html`<aside class="panel" aria-label="Objects and masks">
    <${Objects} /><${Selected} /><${Looks} /><${Review} />
  </aside>`;
}
