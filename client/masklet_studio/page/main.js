/** Where the page begins. */
import { effect, html, render } from "./ui.js";
import * as actions from "./state/actions.js";
import { onKey } from "./state/keys.js";
import { startPlayer } from "./state/player.js";
import * as s from "./state/store.js";
import { App } from "./parts/app.js";
import { setTheme } from "./parts/top.js";

const POLL = 1000; // milliseconds between two questions while a video's number of frames is not known

/** The video that the address names, with the frame it was left at. */
function openNamed() {
  const id = location.hash.match(/^#\/video\/([^/]+)/)?.[1];
  const video = s.videos.value.find((one) => one.id === id && one.ready && !one.error);
  if (video) actions.openVideo(video, Number(sessionStorage.getItem(`frame:${id}`)) || 0);
}

/** One video that was named on the command line is opened at once. */
function openOnly() {
  const [only, ...others] = s.videos.value;
  if (!s.video.value && only?.ready && !only.error && !others.length && !location.hash) actions.openVideo(only);
}

setTheme(s.theme.value);
render(html`<${App} />`, /** @type {Element} */ (document.getElementById("app")));
startPlayer();
addEventListener("keydown", onKey);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => s.scheme.value++);

effect(() => {
  const video = s.video.value;
  document.title = video ? `${video.name} · masklet studio` : "masklet studio";
  if (video) sessionStorage.setItem(`frame:${video.id}`, String(s.frame.value));
});
effect(() => {
  // What was told about one frame says nothing about the next one.
  const { value } = s.frame;
  if (s.told.peek() && value !== toldAt) s.told.value = "";
});
let toldAt = -1;
effect(() => {
  if (s.told.value) toldAt = s.frame.peek();
});

await actions.loadState();
openNamed();
openOnly();
setInterval(async () => {
  const video = s.video.value;
  if (!video || video.frames !== null) return;
  await actions.loadState();
  const now = s.videos.value.find(({ id }) => id === video.id);
  if (now && now.frames !== null && s.video.value?.id === now.id) s.video.value = now;
}, POLL);
