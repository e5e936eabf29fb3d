/** The first page: videos that are here, and a place to drop another one. */
import { Component, html, observe, signal } from "../ui.js";
import { loadState, openVideo, removeVideo } from "../state/videos.js";
import * as s from "../state/store.js";
import { dismiss, uploadFile, uploads } from "../wire/upload.js";
import { counted, IconButton, Problem, Progress, size } from "./common.js";
import { Icon } from "./icons.js";
import { LiveStart } from "./live.js";
import { Brand, Model, ThemeButton } from "./top.js";

const POLL = 400; // milliseconds between two looks at a video that is being read

const over = signal(false);

/** @param {Iterable<File>} files */
function take(files) {
  const all = [...files];
  for (const file of all) {
    uploadFile(file, async (video) => {
      // A video that was dropped alone is opened as soon as it was read.
      if (all.length === 1 && !s.video.value) location.hash = `#/video/${video.id}`;
      await loadState();
    });
  }
}

/** Files may be dropped anywhere on the page. @param {DragEvent} event */
function onDrop(event) {
  event.preventDefault();
  over.value = false;
  if (event.dataTransfer) take(event.dataTransfer.files);
}

/** Ask for files. The field is found at the click: a reference to it is empty for a moment when the page is drawn anew. @param {any} event */
function choose(event) {
  event.currentTarget.parentElement.querySelector("input[type=file]").click();
}

const Drop = observe(() => {
  if (s.server.value && !s.server.value.may_upload) {
    return html`<div class="drop closed">
      <${Icon} name="film" size=${32} />
      <h2>${s.videos.value.length ? "Choose a video below" : "No video yet"}</h2>
      <p>This studio takes no uploads. Start it with videos: <code>masklet studio clip.mp4</code></p>
    </div>`;
  }
  return html`<div class=${over.value ? "drop over" : "drop"}>
    <${Icon} name="upload" size=${32} />
    <h2>Drop a video here</h2>
    <p>It goes to your studio, and from there to the server that tracks. Nobody else gets it.</p>
    <button type="button" class="button primary" onClick=${choose}>Choose a video</button>
    <input
      type="file"
      class="unseen"
      tabindex="-1"
      aria-label="Choose videos"
      accept="video/*,image/gif,image/webp,.mkv,.ts,.mts,.avi"
      multiple
      onChange=${(/** @type {any} */ event) => {
        take(event.target.files);
        event.target.value = "";
      }}
    />
  </div>`;
});

const Uploads = observe(() =>
  uploads.value.map(
    (upload) => html`<div class="upload" key=${upload.key}>
      <div class="upload-line">
        <span class="upload-name">${upload.name}</span>
        <span class="soft">
          ${upload.error ? "" : upload.waiting ? "Waiting for the studio…" : `${size(upload.sent)} of ${size(upload.size)}`}
        </span>
        <${IconButton} icon="close" size=${14} name=${`Give up the upload of ${upload.name}`} onClick=${() => dismiss(upload.key)} />
      </div>
      ${upload.error
        ? html`<p class="upload-error" role="alert">${upload.error}</p>`
        : html`<${Progress} done=${upload.sent} total=${upload.size} name=${`Upload of ${upload.name}`} />`}
    </div>`,
  ),
);

/** @param {{video: import("../types.js").Video}} props */
function Card({ video }) {
  const facts = [
    video.width && `${video.width} × ${video.height}`,
    video.frames && counted(video.frames, "frame"),
    video.fps && `${Math.round(video.fps * 100) / 100} fps`,
  ].filter(Boolean);
  return html`<li class="card">
    <button type="button" class="card-open" disabled=${!video.ready} onClick=${() => openVideo(video)}>
      ${video.ready
        ? html`<img src=${`/videos/${video.id}/thumbnail`} alt="" loading="lazy" />`
        : html`<span class="card-blank"><${Icon} name=${video.error ? "warn" : "film"} size=${28} /></span>`}
      <span class="card-name">${video.name}</span>
      <span class=${video.error ? "card-error" : "soft"}>${video.error ?? (video.ready ? facts.join(" · ") : "Reading the video…")}</span>
    </button>
    <${IconButton} icon="trash" size=${15} class="card-remove" name=${`Remove ${video.name} from the project`}
      onClick=${() => confirm(`Remove ${video.name} and all its masks from the project?`) && removeVideo(video.id)} />
  </li>`;
}

const Library = observe(() => {
  const videos = s.videos.value;
  if (!videos.length) return null;
  return html`<section aria-label="Videos of this project">
    <h2 class="section-title">Videos</h2>
    <ul class="cards">
      ${videos.map((video) => html`<${Card} key=${video.id} video=${video} />`)}
    </ul>
  </section>`;
});

export class Start extends Component {
  /** @type {ReturnType<typeof setInterval> | undefined} */ timer = undefined;

  componentDidMount() {
    // What is being read is looked after until it is ready.
    this.timer = setInterval(() => {
      const unread = s.videos.value.some(({ ready, error }) => !ready && !error);
      if (!s.server.value || s.problems.value.video || unread) loadState();
    }, POLL);
  }

  componentWillUnmount() {
    clearInterval(this.timer);
  }

  render() {
    return html`<div
      class="start"
      onDragOver=${(/** @type {DragEvent} */ event) => {
        event.preventDefault();
        over.value = true;
      }}
      onDragLeave=${(/** @type {DragEvent} */ event) => event.relatedTarget || (over.value = false)}
      onDrop=${onDrop}
    >
      <header class="top">
        <${Brand} />
        <span class="grow"></span>
        <${Model} />
        <${ThemeButton} />
      </header>
      <main class="start-body">
        <div class="welcome">
          <h1>Click an object. Get its mask on every frame.</h1>
          <ol class="steps" aria-label="How it works">
            <li><b>1</b> Open a video</li>
            <li><b>2</b> Click what you want to track</li>
            <li><b>3</b> Track, look, correct</li>
            <li><b>4</b> Export</li>
          </ol>
        </div>
        <${Problem} place="video" />
        <${Drop} />
        <${Uploads} />
        <${LiveStart} />
        <${Library} />
      </main>
    </div>`;
  }
}
