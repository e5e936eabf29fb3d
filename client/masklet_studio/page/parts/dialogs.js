/** Which dialog is open, and the sheet of all keys. */
import { html, observe } from "../ui.js";
import { shortcuts } from "../state/keys.js";
import * as s from "../state/store.js";
import { Dialog } from "./common.js";
import { ExportDialog } from "./export.js";

const KeysDialog = () => html`<${Dialog} title="Keys" wide=${true}>
  <div class="keys">
    ${[...new Set(shortcuts().map(({ group }) => group))].map(
      (group) => html`<section key=${group}>
        <h3>${group}</h3>
        <dl>
          ${shortcuts().filter((one) => one.group === group).map(
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
