/**
 * The shapes that the page and the gateway exchange. Coordinates are pixels of the video; frames count from 0.
 *
 * @typedef {{id: string, name: string, width: number, height: number, frames: number | null, fps: number | null,
 *   duration: number | null, ready: boolean, error: string | null, times?: string | null, live?: boolean, from_page?: boolean}} Video
 * @typedef {{object: number, name: string, class: string | null, colour: string}} TrackedObject
 * @typedef {[number, number, number]} Point x, y, and 1 for "belongs to it" or 0 for "does not".
 * @typedef {[number, number, number, number]} Box left, top, right, bottom.
 * @typedef {{object: number, frame: number, points: Point[], box: Box | null, has_mask?: boolean}} Prompt
 * @typedef {{object: number, runs: [number, number, number][], ious: string, corrections: number[], untracked: number[],
 *   events: [number, "lost" | "found"][]}} Lane
 * @typedef {{running: boolean, direction?: string | null, frame?: number | null, to?: number | null,
 *   frames_per_second?: number | null, error?: string | null}} Tracking
 * @typedef {{format: string, name: string, extension: string, extensions?: string[], what: string,
 *   options?: string[]}} ExportFormat
 * @typedef {{id: string, done: number, total: number | null, ready: boolean,
 *   error: string | {message: string} | null}} Export
 * @typedef {{version: string, model: string, models: string[], project: {name: string, path: string},
 *   videos: Video[], exports: ExportFormat[], may_upload: boolean, token_needed: boolean, server?: string,
 *   live?: {sessions: Video[], named: string[], any_source: boolean}}} ServerState
 * @typedef {{state: string, message: string, server: boolean, server_message?: string, latency?: number | null,
 *   frames_per_second?: number}} LiveStatus How a live video goes.
 * @typedef {{on: boolean, frames?: number, seconds?: number, bytes?: number, video?: Video | null,
 *   error?: string | null}} Recording
 * @typedef {{object: number, frame: number, revision: number, visible: boolean, prompted: boolean, edited: boolean,
 *   iou: number, score: number, area: number, width: number, height: number, counts: Uint8Array}} MaskRecord
 * @typedef {{frame: number, object: number, why: string, score?: number}} Doubt
 * @typedef {"stage" | "track" | "objects" | "video" | "export" | "live"} Place Where on the page a problem is told.
 * @typedef {"point" | "box" | "brush" | "eraser" | "hand"} Tool
 * @typedef {"fill" | "outline" | "cutout" | "matte"} OverlayStyle
 */
export {};
