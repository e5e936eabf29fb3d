/** Small parts that several places use. */
import { Component, createRef, html, observe } from "../ui.js";
import { problem } from "../state/opened.js";
import * as s from "../state/store.js";
import { Icon } from "./icons.js";

/**
 * A button with an icon; its name is read by screen readers and shown with its key when the pointer rests on it.
 *
 * @param {{icon: string, name: string, keys?: string, onClick: () => unknown, pressed?: boolean, disabled?: boolean,
 *   size?: number, filled?: boolean, class?: string}} props
 */
export function IconButton({ icon, name, keys, onClick, pressed, disabled, size, filled, class: more = "" }) {
  return html`<button
    type="button"
    class=${`icon-button ${more}`}
    aria-label=${name}
    aria-pressed=${pressed === undefined ? undefined : String(pressed)}
    aria-keyshortcuts=${keys}
    title=${keys ? `${name}  (${keys})` : name}
    disabled=${disabled}
    onClick=${onClick}
  ><${Icon} name=${icon} size=${size} filled=${filled} /></button>`;
}

/** What went wrong at a place of the page, in words, until it is closed or goes well. */
export const Problem = observe((/** @type {{place: import("../types.js").Place}} */ { place }) => {
  const message = s.problems.value[place];
  if (!message) return null;
  return html`<div class="problem" role="alert">
    <${Icon} name="warn" size=${16} />
    <span>${message}</span>
    <${IconButton} icon="close" name="Close this message" size=${14} onClick=${() => problem(place, null)} />
  </div>`;
});

/**
 * A field to type into. What is typed stays until it is done, also when the page is drawn anew meanwhile because
 * something happened elsewhere: a reply, another tab, a frame that was tracked.
 */
export class Typed extends Component {
  /** @type {string | null} */ draft = null;

  /** @param {any} props */
  render({ value, onChange, onKeyDown, ...others }) {
    const leave = () => void (this.draft = null);
    return html`<input ...${others} value=${this.draft ?? value} onBlur=${leave}
      onInput=${(/** @type {any} */ event) => void (this.draft = event.target.value)}
      onKeyDown=${onKeyDown ?? ((/** @type {any} */ event) => event.key === "Enter" && event.target.blur())}
      onChange=${(/** @type {any} */ event) => {
        leave();
        onChange(event);
      }} />`;
  }
}

/** A dialog over the page; Escape and a click beside it close it. */
export class Dialog extends Component {
  element = createRef();

  componentDidMount() {
    this.element.current.showModal();
  }

  /** @param {any} props */
  render({ title, children, wide }) {
    const close = () => void (s.dialog.value = null);
    return html`<dialog
      ref=${this.element}
      class=${wide ? "dialog wide" : "dialog"}
      aria-label=${title}
      onClose=${close}
      onClick=${(/** @type {MouseEvent} */ event) => event.target === this.element.current && close()}
    >
      <div class="dialog-body">
        <header class="dialog-head">
          <h2 tabindex="-1" autofocus>${title}</h2>
          <${IconButton} icon="close" name="Close" onClick=${close} />
        </header>
        ${children}
      </div>
    </dialog>`;
  }
}

/** @param {{done: number, total: number | null, name: string}} props */
export function Progress({ done, total, name }) {
  return html`<progress aria-label=${name} max=${total || 1} value=${total ? done : undefined}></progress>`;
}

/** @param {number} bytes */
export function size(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`;
}

/** @param {number} count @param {string} one @param {string} [many] */
export const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
