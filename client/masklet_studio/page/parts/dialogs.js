/** Dialogs: export, and the sheet of all keys. */
import { html, observe, signal } from "../ui.js";
import * as actions from "../state/actions.js";
import { SHORTCUTS } from "../state/keys.js";
import * as s from "../state/store.js";
import { counted, Dialog, Problem, Progress } from "./common.js";
import { Icon } from "./icons.js";

const format = signal("");

/** @param {string} id */
const fileOf = (id) => `/api/exports/${id}/file`;

/** @param {import("../types.js").Export} running */
function Outcome(running) {
  if (running.error) return html`<p class="problem" role="alert"><${Icon} name="warn" size=${16} /><span>${running.error}</span></p>`;
  if (!running.ready) {
    return html`<div class="export-progress" role="status">
      <${Progress} done=${running.done} total=${running.total} name="Export" />
      <span class="soft number">${running.total ? `${running.done} of ${running.total} frames` : "Preparing…"}</span>
    </div>`;
  }
  return html`<div class="export-ready" role="status">
    <span class="done"><${Icon} name="check" size=${18} /> Ready</span>
    <a class="button primary" href=${fileOf(running.id)} download><${Icon} name="download" size=${16} /> Download</a>
  </div>`;
}

const ExportDialog = observe(() => {
  const formats = s.server.value?.exports ?? [];
  const picked = formats.find((one) => one.format === format.value) ?? formats[0];
  const running = s.exporting.value;
  const busy = !!running && !running.ready && !running.error;
  const { in: first, out: last } = s.marks.value;
  const marked = first !== null || last !== null;
  return html`<${Dialog} title="Export">
    ${!s.anythingTracked.value && !s.prompts.value.size
      ? html`<p class="empty">There are no masks yet. Click an object in the picture, then press <b>Track forward</b>.</p>`
      : html`<p class="soft">
          ${counted(s.objects.value.length, "object")}, ${counted(s.framesTracked.value, "frame")} with masks${marked
            ? `, frames ${first ?? 0} to ${last ?? s.lastFrame.value}` : ""}
        </p>`}
    ${!formats.length && html`<p class="empty">This studio offers no formats to export to.</p>`}
    <div class="formats" role="radiogroup" aria-label="Format">
      ${formats.map(
        (one) => html`<label class="format" key=${one.format}>
          <input type="radio" name="format" value=${one.format} checked=${one === picked} disabled=${busy}
            onChange=${() => {
              format.value = one.format;
              s.exporting.value = null;
            }} />
          <span class="format-name">${one.name} <code>${one.extension}</code></span>
          <span class="soft">${one.what}</span>
        </label>`,
      )}
    </div>
    <${Problem} place="export" />
    ${running && Outcome(running)}
    <footer class="dialog-foot">
      <button type="button" class=${running?.ready ? "button" : "button primary"} disabled=${busy || !picked || !s.objects.value.length}
        onClick=${() => actions.startExport(picked.format, {})}>
        ${running?.ready ? "Export again" : `Export ${picked?.name ?? ""}`}
      </button>
    </footer>
  </${Dialog}>`;
});

const KeysDialog = () => html`<${Dialog} title="Keys" wide=${true}>
  <div class="keys">
    ${[...new Set(SHORTCUTS.map(({ group }) => group))].map(
      (group) => html`<section key=${group}>
        <h3>${group}</h3>
        <dl>
          ${SHORTCUTS.filter((one) => one.group === group).map(
            ({ keys, shown, what }) => html`<div key=${what}><dt>${what}</dt><dd>
              ${(shown ?? keys[0].toUpperCase()).split(" ").map((key) => html`<kbd>${key}</kbd>`)}
            </dd></div>`,
          )}
        </dl>
      </section>`,
    )}
    <section>
      <h3>Mouse</h3>
      <dl>
        ${[["Add to the object", "click"], ["Take from the object", "right click"], ["Box", "drag"], ["Take a point away", "click it"],
          ["Zoom", "wheel"], ["Move the picture", "middle drag"]].map(
          ([what, how]) => html`<div key=${what}><dt>${what}</dt><dd class="soft">${how}</dd></div>`,
        )}
      </dl>
    </section>
  </div>
</${Dialog}>`;

export const Dialogs = observe(() => {
  if (s.dialog.value === "keys") return html`<${KeysDialog} />`;
  return s.dialog.value === "export" ? html`<${ExportDialog} />` : null;
});
