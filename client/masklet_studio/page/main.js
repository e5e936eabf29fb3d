/** Where the page begins. */
import { effect, html, render, untracked } from "./ui.js";
import { closeVideo, loadState, openVideo } from "./state/videos.js";
import { onKey } from "./state/keys.js";
import { openLive, startLive } from "./state/live.js";
import { startLooking } from "./state/looking.js";
import { startPlayer } from "./state/player.js";
import * as s from "./state/store.js";
import { startTimes } from "./state/times.js";
import { App } from "./parts/app.js";
import { setTheme } from "./parts/top.js";

const READ = 5000; // milliseconds in which a sentence is read
const POLL = 1000; // milliseconds between two questions while a video's number of frames is not known

/** Open the video that the address names, at the frame it was left at; else the only one, as soon as it was read. */
function openFirst() {
  if (s.video.value || s.opening.value) return;
  const live = s.server.value?.live;
  const running = live?.sessions.find((one) => location.hash === `#/live/${one.id}`);
  if (running) return openLive(running);
  // A camera that was named on the command line is what the person wants to see.
  if (!location.hash && live?.named.length === 1) return startLive({ named: 0 });
  const id = location.hash.match(/^#\/video\/([^/]+)/)?.[1];
  const only = s.videos.value.length === 1 && !location.hash ? s.videos.value[0] : null;
  const video = s.videos.value.find((one) => one.id === id) ?? only;
  if (video?.ready) openVideo(video, Number(sessionStorage.getItem(`frame:${video.id}`)) || 0);
}

setTheme(s.theme.value);
render(html`<${App} />`, /** @type {Element} */ (document.getElementById("app")));
startPlayer();
startLooking();
startTimes();
addEventListener("keydown", onKey);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());
addEventListener("hashchange", () => {
  // The browser's way back: to the first page, or to another video.
  const video = s.video.value;
  if (location.hash === (video ? `#/${video.live ? "live" : "video"}/${video.id}` : "#/")) return;
  closeVideo();
  loadState();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => s.scheme.value++);

effect(() => {
  const video = s.video.value;
  document.title = video ? `${video.name} · masklet studio` : "masklet studio";
  if (video && !video.live) sessionStorage.setItem(`frame:${video.id}`, String(s.frame.value));
});
effect(() => {
  // What was told about one frame says nothing about the next one.
  const { value } = s.frame;
  if (s.told.peek() && value !== toldAt && !s.live.peek()) s.told.value = "";
});
let toldAt = -1;
effect(() => {
  const text = s.told.value;
  if (!text) return;
  toldAt = s.frame.peek();
  // Of a live video, the next picture comes before this was read.
  if (s.live.peek()) setTimeout(() => s.told.peek() === text && (s.told.value = ""), READ);
});

effect(() => {
  if (s.server.value && s.videos.value) untracked(openFirst);
});
await loadState();
setInterval(async () => {
  if (s.server.value && !s.server.value.model) await loadState(); // the server has not loaded it yet
  const video = s.video.value;
  if (!video || video.live || video.frames !== null) return;
  await loadState();
  const now = s.videos.value.find(({ id }) => id === video.id);
  if (now && now.frames !== null && s.video.value?.id === now.id) s.video.value = now;
}, POLL);
