/** The dialog that takes masks out: a format, what it leaves to choose, progress, and the file. */
import { computed, html, observe, signal } from "../ui.js";
import { startExport } from "../state/exporting.js";
import * as s from "../state/store.js";
import { counted, Dialog, Problem, Progress } from "./common.js";
import { Icon } from "./icons.js";

const BACKGROUNDS = [["transparent", "Transparent"], ["green", "Green"], ["black", "Black"], ["blur", "The picture, blurred"]];

const format = signal("");
const options = signal(/** @type {Record<string, any>} */ ({}));

const formats = computed(() => s.server.value?.exports ?? []);

const picked = computed(() => formats.value.find((one) => one.format === format.value) ?? formats.value[0]);

/** @param {string} name @param {any} value */
function choose(name, value) {
  options.value = { ...options.value, [name]: value };
  s.exporting.value = null;
}

/** @param {{name: string, text: string, choices: string[][]}} props */
const Choice = ({ name, text, choices }) => html`<label class="field">
  <span>${text}</span>
  <select value=${options.value[name] ?? choices[0][0]} onChange=${(/** @type {any} */ event) => choose(name, event.target.value)}>
    ${choices.map(([value, shown]) => html`<option value=${value}>${shown}</option>`)}
  </select>
</label>`;

/** What this format leaves to choose. @param {import("../types.js").ExportFormat} one */
function Options(one) {
  const known = one.options ?? [];
  const files = one.extensions ?? [];
  return html`<div class="options">
    ${files.length > 1 && html`<${Choice} name="extension" text="File" choices=${files.map((name) => [name, name])} />`}
    ${known.includes("shape") &&
    html`<${Choice} name="shape" text="Shapes" choices=${[["", "Usual for the format"], ["mask", "Masks"], ["polygon", "Polygons"]]} />`}
    ${known.includes("background") && html`<${Choice} name="background" text="Behind" choices=${BACKGROUNDS} />`}
    ${known.includes("feather") &&
    html`<label class="field"><span>Soft edge</span>
      <input type="range" min="0" max="5" step="0.1" value=${options.value.feather ?? 0.7}
        onInput=${(/** @type {any} */ event) => choose("feather", Number(event.target.value))} />
      <span class="number">${(options.value.feather ?? 0.7).toFixed(1)} px</span>
    </label>`}
    ${known.includes("pictures") &&
    html`<label class="check">
      <input type="checkbox" checked=${!!options.value.pictures}
        onChange=${(/** @type {any} */ event) => choose("pictures", event.target.checked)} />
      With the frames as pictures
    </label>`}
  </div>`;
}

/** The options that were chosen and that this format knows. @param {import("../types.js").ExportFormat} one */
function chosen({ options: known = [], extensions = [] }) {
  const given = Object.entries(options.value).filter(
    ([name, value]) => value !== "" && (name === "extension" ? extensions.includes(value) : known.includes(name)),
  );
  return Object.fromEntries(given);
}

/** @param {import("../types.js").Export} running */
function Outcome(running) {
  if (running.error) {
    const text = typeof running.error === "string" ? running.error : running.error.message;
    return html`<p class="problem" role="alert"><${Icon} name="warn" size=${16} /><span>${text}</span></p>`;
  }
  if (!running.ready) {
    return html`<div class="export-progress" role="status">
      <${Progress} done=${running.done} total=${running.total} name="Export" />
      <span class="soft number">${running.total ? `${running.done} of ${running.total} frames` : "Preparing…"}</span>
    </div>`;
  }
  return html`<div class="export-ready" role="status"><span class="done"><${Icon} name="check" size=${18} /> Ready</span></div>`;
}

export const ExportDialog = observe(() => {
  const one = picked.value;
  const running = s.exporting.value;
  const busy = !!running && !running.ready && !running.error;
  const nothing = !s.anythingTracked.value;
  return html`<${Dialog} title="Export">
    ${nothing
      ? html`<p class="empty">There are no masks yet. Click an object in the picture, then press Track forward.</p>`
      : html`<p class="soft">${counted(s.objects.value.length, "object")}, ${counted(s.framesTracked.value, "frame")} with masks</p>`}
    ${!nothing && s.tracking.value.running && html`<p class="soft">Objects are still being tracked: the file has the masks made so far.</p>`}
    ${!one && html`<p class="empty">This studio offers no formats to export to.</p>`}
    <div class="formats" role="radiogroup" aria-label="Format">
      ${formats.value.map(
        (other) => html`<label class="format" key=${other.format}>
          <input type="radio" name="format" value=${other.format} checked=${other === one} disabled=${busy}
            onChange=${() => {
              format.value = other.format;
              s.exporting.value = null;
            }} />
          <span class="format-name">${other.name} <code>${other.extension}</code></span>
          <span class="soft">${other.what}</span>
        </label>`,
      )}
    </div>
    ${one && Options(one)}
    <${Problem} place="export" />
    ${running && Outcome(running)}
    <footer class="dialog-foot">
      ${running?.ready
        ? html`<a class="button primary" href=${`/api/exports/${running.id}/file`} download>
            <${Icon} name="download" size=${16} /> Download</a>`
        : html`<button type="button" class="button primary" disabled=${busy || !one || nothing}
            onClick=${() => one && startExport(one.format, chosen(one))}>
            Export ${one ? one.name : ""}</button>`}
    </footer>
  </${Dialog}>`;
});
