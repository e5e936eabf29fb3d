/** The icons: lines on a grid of 24. */
import { html } from "../ui.js";

/** @type {Record<string, string>} */
const LINES = {
  logo: "M4 17c0-6 3-11 8-11s8 5 8 11c0 2-2 3-4 2-1.5-.8-2.5-.8-4 0s-2.5.8-4 0c-2-1-4 0-4-2zM9 13h.01M15 13h.01",
  point: "M12 3v5M12 16v5M3 12h5M16 12h5M12 12h.01",
  box: "M4 8V5a1 1 0 0 1 1-1h3M16 4h3a1 1 0 0 1 1 1v3M20 16v3a1 1 0 0 1-1 1h-3M8 20H5a1 1 0 0 1-1-1v-3",
  brush: "M14.5 4.5 19.5 9.5 10 16l-3-3zM7 13c-2 0-3 1.5-3 3.5 0 1.2-.5 2.5-1 3 3 .6 7 0 7-3.5",
  eraser: "M8.5 19.5 3.5 14.5a1.5 1.5 0 0 1 0-2l8.5-8.5a1.5 1.5 0 0 1 2 0l6 6a1.5 1.5 0 0 1 0 2l-7.5 7.5zM8 8l8 8M8.5 19.5H20",
  hand: "M12 3v18M3 12h18M12 3 9.5 5.5M12 3l2.5 2.5M12 21l-2.5-2.5M12 21l2.5-2.5M3 12l2.5-2.5M3 12l2.5 2.5M21 12l-2.5-2.5M21 12l-2.5 2.5",
  play: "M7 4.5v15l12-7.5z",
  pause: "M8 5v14M16 5v14",
  back: "M15 5l-7 7 7 7",
  on: "M9 5l7 7-7 7",
  first: "M17 5l-7 7 7 7M7 5v14",
  last: "M7 5l7 7-7 7M17 5v14",
  arrowRight: "M4 12h15M13 6l6 6-6 6",
  arrowLeft: "M20 12H5M11 6l-6 6 6 6",
  both: "M3 12h18M7 8l-4 4 4 4M17 8l4 4-4 4",
  stop: "M6.5 6.5h11v11h-11z",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 9.2a2.8 2.8 0 1 1 0 5.6 2.8 2.8 0 0 1 0-5.6z",
  eyeOff: "M4 4l16 16M9.5 6c.8-.3 1.6-.5 2.5-.5 6 0 9.5 6.5 9.5 6.5a17 17 0 0 1-2.7 3.4M6.5 7.6A16 16 0 0 0 2.5 12S6 18.5 12 18.5c1.5 0 2.9-.4 4.1-1",
  undo: "M8 5 4 9l4 4M4 9h10a5.5 5.5 0 0 1 0 11h-3",
  redo: "M16 5l4 4-4 4M20 9H10a5.5 5.5 0 0 0 0 11h3",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2.5v2M12 19.5v2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2.5 12h2M19.5 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  half: "M12 3.5a8.5 8.5 0 1 1 0 17 8.5 8.5 0 0 1 0-17zM12 3.5v17M12 7h5.5M12 11h8M12 15h7.5",
  keys: "M3.5 7h17a1 1 0 0 1 1 1v8a1 1 0 0 1-1 1h-17a1 1 0 0 1-1-1V8a1 1 0 0 1 1-1zM6.5 10.5h.01M10 10.5h.01M13.5 10.5h.01M17.2 10.5h.01M8 14h8",
  export: "M12 15V4M7.5 8 12 3.5 16.5 8M4.5 14v4.5a1.5 1.5 0 0 0 1.5 1.5h12a1.5 1.5 0 0 0 1.5-1.5V14",
  download: "M12 4v11M7.5 11l4.5 4.5L16.5 11M4.5 19.5h15",
  upload: "M12 16V5M7 9.5 12 4.5l5 5M4.5 19.5h15",
  close: "M6 6l12 12M18 6 6 18",
  trash: "M4.5 7h15M9.5 7V4.5h5V7M6.5 7l1 13h9l1-13M10.5 11v5M13.5 11v5",
  copy: "M8.5 8.5h11v11h-11zM15.5 8.5v-4h-11v11h4",
  swap: "M4 8h14M14.5 4.5 18 8l-3.5 3.5M20 16H6M9.5 12.5 6 16l3.5 3.5",
  warn: "M12 4.5 21 19.5H3zM12 10.5v4M12 17h.01",
  check: "M5 12.5l4.5 4.5L19 7.5",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 9.5h4M4 14.5h4M16 9.5h4M16 14.5h4",
  in: "M9 5H6v14h3",
  out: "M15 5h3v14h-3",
  camera: "M4 7.5h10a1.5 1.5 0 0 1 1.5 1.5v6a1.5 1.5 0 0 1-1.5 1.5H4A1.5 1.5 0 0 1 2.5 15V9A1.5 1.5 0 0 1 4 7.5zM15.5 11l6-3v8l-6-3",
  follow: "M4 5v14M8 12h11M15 7.5l4.5 4.5-4.5 4.5",
  flag: "M6 21V4M6 4.5h11l-2.5 4 2.5 4H6",
};

/** @param {{name: string, size?: number, filled?: boolean}} props */
export function Icon({ name, size = 18, filled = false }) {
  return html`<svg width=${size} height=${size} viewBox="0 0 24 24" fill=${filled ? "currentColor" : "none"} stroke="currentColor"
    stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${LINES[name]} /></svg>`;
}
