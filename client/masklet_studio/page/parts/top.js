/** The bar at the top: where one is, undo and redo, the connection, and export. */
import { html, observe } from "../ui.js";
import { redo, undo } from "../state/editing.js";
import { closeVideo, loadState } from "../state/videos.js";
import * as s from "../state/store.js";
import { IconButton } from "./common.js";
import { Icon } from "./icons.js";

export function Brand() {
  return html`<span class="brand"><${Icon} name="logo" size=${22} /> masklet <span class="soft">studio</span></span>`;
}

const THEMES = /** @type {Record<string, {next: string, icon: string, name: string}>} */ ({
  system: { next: "light", icon: "half", name: "Colours: as the system has them" },
  light: { next: "dark", icon: "sun", name: "Colours: light" },
  dark: { next: "system", icon: "moon", name: "Colours: dark" },
});

/** @param {string} theme */
export function setTheme(theme) {
  if (theme === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
  s.theme.value = theme;
  s.keep("theme", theme);
}

export const ThemeButton = observe(() => {
  const { next, icon, name } = THEMES[s.theme.value] ?? THEMES.system;
  return html`<${IconButton} icon=${icon} name=${name} onClick=${() => setTheme(next)} />`;
});

/** The model that makes the masks, and where it runs. */
export const Model = observe(() => {
  const { model, server } = s.server.value ?? {};
  if (!model) return null;
  return html`<span class="model" title=${`The model that makes the masks, on ${server || "the server"}`}>
    <span class="unseen">Model: </span>${model}</span>`;
});

const Connection = observe(() => {
  if (s.live.value) return null; // its own bar tells
  const fine = s.connected.value && s.engine.value.connected;
  const text = !s.connected.value ? "Connecting…" : fine && s.loading.value ? "Saved · loading the model…" : fine ? "Saved" : "The model server is away";
  return html`<span class=${fine ? "connection" : "connection lost"} role="status" title=${s.engine.value.message}>
    <span class="dot"></span>${text}
  </span>`;
});

export const Top = observe(() => {
  const video = s.video.value;
  return html`<header class="top">
    <button type="button" class="brand-button" aria-label="masklet studio: all videos" title="All videos" onClick=${leave}><${Brand} /></button>
    <span class="crumb" aria-hidden="true">/</span>
    <h1 class="title" title=${video?.name}>${video?.name}</h1>
    <${Connection} />
    <${Model} />
    <span class="grow"></span>
    <${IconButton} icon="undo" name="Undo" keys="Ctrl Z" disabled=${!s.history.value.can_undo} onClick=${undo} />
    <${IconButton} icon="redo" name="Redo" keys="Ctrl Shift Z" disabled=${!s.history.value.can_redo} onClick=${redo} />
    <span class="divider"></span>
    <${ThemeButton} />
    <${IconButton} icon="keys" name="All keys" keys="?" onClick=${() => (s.dialog.value = "keys")} />
    ${!s.live.value && html`<button type="button" class=${s.framesTracked.value > 1 && !s.tracking.value.running ? "button primary" : "button"}
      title="Export  (Ctrl E)" onClick=${() => (s.dialog.value = "export")}>
      <${Icon} name="export" size=${16} /> Export
    </button>`}
  </header>`;
});

function leave() {
  closeVideo();
  history.replaceState(null, "", "#/");
  loadState();
}

/** A lost connection, told where nobody can overlook it, and without taking the page away. */
export const Banner = observe(() => {
  if (s.connected.value && s.engine.value.connected) return null;
  const text = s.connected.value
    ? s.engine.value.message || "The model server does not answer. Masks that are here can be seen; the studio goes on trying."
    : "Not connected to the studio. Your work is kept. This page goes on as soon as the studio answers.";
  return html`<div class="banner" role="alert"><span class="spinner"></span>${text}</div>`;
});
