/** What belongs to a live video: the bar under it, what is said when it stops, and the place to open one. */
import { html, observe } from "../ui.js";
import { mayUseCamera, NO_CAMERA } from "../state/camera.js";
import { againLive, endLive, leaveLive, openLive, openRecording, startLive, toggleRecording } from "../state/live.js";
import * as s from "../state/store.js";
import { counted, Problem, size } from "./common.js";
import { Icon } from "./icons.js";

/** @param {number} seconds */
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

const Going = observe(() => {
  const { state, latency, frames_per_second: pace } = s.status.value;
  const runs = state === "running";
  const text = runs ? "Live" : state === "ended" ? "Ended" : state === "waiting" ? "Waiting for pictures" : "Connecting";
  return html`<div class="going" role="status">
    <span class=${runs ? "live-dot on" : "live-dot"}></span><b>${text}</b>
    ${runs &&
    html`<span class="number soft" title="From the moment a picture was taken, or came to the studio, until it was drawn here: half of the last pictures were faster">
      ${latency == null ? "" : `${latency} ms behind`}</span>
      <span class="number soft" title="Pictures with masks in a second">${pace ? `${pace.toFixed(pace < 10 ? 1 : 0)} pictures a second` : ""}</span>`}
  </div>`;
});

const Recorded = observe(() => {
  const { on, frames, seconds, bytes, video, error } = s.recording.value;
  if (on) return html`<span class="number soft" role="status">${clock(seconds ?? 0)} · ${counted(frames ?? 0, "frame")} · ${size(bytes ?? 0)}</span>`;
  return html`<span class="recorded">
    ${error && html`<span class="problem" role="alert"><${Icon} name="warn" size=${16} /><span>${error}</span></span>`}
    ${video &&
    html`<span class="soft">Kept: ${counted(frames ?? 0, "frame")}</span>
      <button type="button" class="button" onClick=${openRecording}>Open the recording</button>`}
  </span>`;
});

const Record = observe(() => {
  const { on } = s.recording.value;
  return html`<button type="button" class=${on ? "button recording" : "button"} aria-pressed=${String(on)} aria-keyshortcuts="R"
    disabled=${s.status.value.state === "ended"} onClick=${toggleRecording}
    title=${on ? "Stop recording; it becomes a video of the project  (R)" : "Keep pictures and masks as a video of the project  (R)"}>
    <span class="record-dot"></span>${on ? "Stop recording" : "Record"}
  </button>`;
});

export function LiveBar() {
  return html`<section class="bottom" aria-label="Live video">
    <div class="transport">
      <${Going} />
      <span class="grow"></span>
      <${Problem} place="track" />
      <${Recorded} /><${Record} />
      <button type="button" class="button stop" title="End the live video and free the camera" onClick=${endLive}>
        <${Icon} name="stop" size=${14} filled=${true} /> End
      </button>
    </div>
  </section>`;
}

/** What keeps a live video from going on, where nobody can overlook it. */
export const LiveBanner = observe(() => {
  const { state, message, server, server_message: why } = s.status.value;
  if (state === "ended") {
    return html`<div class="banner" role="alert"><${Icon} name="warn" size=${16} /><span>${message || "The live video is over."}</span>
      <button type="button" class="button small primary" onClick=${againLive}>Open it again</button>
      <button type="button" class="button small" onClick=${leaveLive}>All videos</button>
    </div>`;
  }
  const text = !s.connected.value
    ? "Not connected to the studio. This page goes on as soon as it answers."
    : state !== "running"
      ? message
      : server
        ? ""
        : `No masks for now: ${why || "the model server does not answer"}. Masks come as soon as it is there.`;
  return text ? html`<div class="banner" role="alert"><span class="spinner"></span><span>${text}</span></div>` : null;
});

/** The place on the first page where a camera or a stream is opened. */
export const LiveStart = observe(() => {
  const live = s.server.value?.live;
  if (!live) return null;
  const { sessions, named, any_source: any } = live;
  const busy = s.opening.value;
  /** @param {any} event */
  const open = (event) => {
    event.preventDefault();
    const source = event.target.elements.source.value.trim();
    if (source) startLive({ source });
  };
  return html`<section class="live-start" aria-label="Live video">
    <h2 class="section-title">Live <span class="soft">a camera, tracked while it runs</span></h2>
    <${Problem} place="live" />
    <div class="live-ways">
      ${sessions.map((one) => html`<button type="button" key=${one.id} class="button" onClick=${() => openLive(one)}>
        <span class="live-dot on"></span>${one.name}</button>`)}
      ${named.map((name, number) => html`<button type="button" key=${name} class="button" disabled=${busy} onClick=${() => startLive({ named: number })}>
        <${Icon} name="camera" size=${16} /> ${name}</button>`)}
      <button type="button" class="button" disabled=${busy || !mayUseCamera} title=${mayUseCamera ? "" : NO_CAMERA}
        onClick=${() => startLive({ browser: true })}><${Icon} name="camera" size=${16} /> Use this browser's camera</button>
      ${any &&
      html`<form class="live-address" onSubmit=${open}>
        <input name="source" aria-label="Address of a stream, or a camera of the studio's machine" spellcheck=${false} autocomplete="off"
          placeholder="rtsp://camera/stream, http://…/video, /dev/video0" />
        <button type="submit" class="button" disabled=${busy}>Open</button>
      </form>`}
    </div>
  </section>`;
});
