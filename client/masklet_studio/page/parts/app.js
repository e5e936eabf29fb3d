/** The whole page: the first page, or the workplace of one video. */
import { html, observe } from "../ui.js";
import * as s from "../state/store.js";
import { Stage } from "../stage/stage.js";
import { Timeline } from "../timeline/timeline.js";
import { Dialogs } from "./dialogs.js";
import { LiveBanner, LiveBar } from "./live.js";
import { Panel } from "./objects.js";
import { Start } from "./start.js";
import { Hint, Tools, Waiting } from "./tools.js";
import { Banner, Top } from "./top.js";
import { Transport } from "./transport.js";

const Told = observe(() => (s.live.value ? html`<${LiveBanner} />` : html`<${Banner} />`));
const Bottom = observe(() =>
  s.live.value
    ? html`<${LiveBar} />`
    : html`<section class="bottom" aria-label="Timeline"><${Transport} /><${Timeline} /></section>`,
);

const Workplace = () => html`<div class="workplace">
  <${Top} />
  <${Told} />
  <${Tools} />
  <main class="stage"><${Stage} /><${Waiting} /><${Hint} /></main>
  <${Panel} />
  <${Bottom} />
  <${Dialogs} />
</div>`;

export const App = observe(() => (s.video.value ? html`<${Workplace} />` : html`<${Start} />`));
