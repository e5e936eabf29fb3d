/** Where the video lies on the stage: from pixels of the video to pixels of the screen, and back. */

const MOST = 64; // screen pixels for a pixel of the video

export class View {
  constructor() {
    this.width = 1; // of the video
    this.height = 1;
    this.stageWidth = 1; // of the stage, in CSS pixels
    this.stageHeight = 1;
    this.margin = 16;
    this.scale = 1;
    this.x = 0; // where the video's left upper corner lies
    this.y = 0;
    this.fitted = true;
  }

  /** @param {number} width @param {number} height */
  setVideo(width, height) {
    this.width = width;
    this.height = height;
    this.fit();
  }

  /** @param {number} width @param {number} height */
  setStage(width, height) {
    const [cx, cy] = this.toVideo(this.stageWidth / 2, this.stageHeight / 2);
    this.stageWidth = width;
    this.stageHeight = height;
    if (this.fitted) return this.fit();
    this.x = width / 2 - cx * this.scale;
    this.y = height / 2 - cy * this.scale;
    this.confine();
  }

  get fitScale() {
    const across = (this.stageWidth - 2 * this.margin) / this.width;
    return Math.max(0.01, Math.min(across, (this.stageHeight - 2 * this.margin) / this.height));
  }

  fit() {
    this.scale = this.fitScale;
    this.x = (this.stageWidth - this.width * this.scale) / 2;
    this.y = (this.stageHeight - this.height * this.scale) / 2;
    this.fitted = true;
  }

  /** Zoom about a point of the stage. @param {number} factor @param {number} [sx] @param {number} [sy] */
  zoom(factor, sx = this.stageWidth / 2, sy = this.stageHeight / 2) {
    const [vx, vy] = this.toVideo(sx, sy);
    const least = Math.min(1, this.fitScale);
    this.scale = Math.min(MOST, Math.max(least, this.scale * factor));
    if (this.scale <= this.fitScale * 1.001 && factor < 1) return this.fit();
    this.x = sx - vx * this.scale;
    this.y = sy - vy * this.scale;
    this.fitted = false;
    this.confine();
  }

  /** @param {number} dx @param {number} dy */
  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.confine();
  }

  /** Some of the video always stays on the stage. */
  confine() {
    const room = 80;
    this.x = Math.min(this.stageWidth - room, Math.max(room - this.width * this.scale, this.x));
    this.y = Math.min(this.stageHeight - room, Math.max(room - this.height * this.scale, this.y));
  }

  /** @param {number} sx @param {number} sy @returns {[number, number]} */
  toVideo(sx, sy) {
    return [(sx - this.x) / this.scale, (sy - this.y) / this.scale];
  }

  /** @param {number} vx @param {number} vy @returns {[number, number]} */
  toStage(vx, vy) {
    return [vx * this.scale + this.x, vy * this.scale + this.y];
  }

  /** The nearest place within the video. @param {number} vx @param {number} vy @returns {[number, number]} */
  within(vx, vy) {
    return [Math.min(this.width - 0.01, Math.max(0, vx)), Math.min(this.height - 0.01, Math.max(0, vy))];
  }

  /** @param {number} vx @param {number} vy */
  contains(vx, vy) {
    return vx >= 0 && vy >= 0 && vx < this.width && vy < this.height;
  }
}
