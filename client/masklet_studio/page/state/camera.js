/** The browser's own camera: gives its newest picture as JPEG whenever one is asked for. */

const QUALITY = 0.9;
const LONGER_SIDE = 1280;
const PATIENCE = 250; // milliseconds after which a picture is sent although no new one came: the tab may be hidden
/** @type {Record<string, string>} */
const WHY = {
  NotAllowedError: "The browser does not let this page use the camera. Allow it beside the address, and try again.",
  NotFoundError: "The browser finds no camera on this device.",
  NotReadableError: "Another program uses the camera. Close that, and try again.",
};

/** Whether the browser gives a camera to this page at all. */
export const mayUseCamera = Boolean(navigator.mediaDevices);
export const NO_CAMERA =
  "Browsers give a camera only to pages of the same machine or with HTTPS. Open the studio on the machine of the camera, or through a proxy with TLS.";

export class BrowserCamera {
  /** @param {MediaStream} stream @param {HTMLVideoElement} element */
  constructor(stream, element) {
    this.stream = stream;
    this.element = element;
    this.canvas = new OffscreenCanvas(1, 1);
    this.busy = false;
  }

  /** Ask the person for the camera. @returns {Promise<BrowserCamera>} */
  static async open() {
    if (!mayUseCamera) throw new Error(NO_CAMERA);
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        video: { width: { ideal: LONGER_SIDE }, height: { ideal: 720 } },
        audio: false,
      });
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      throw new Error(WHY[name] ?? `The camera cannot be used: ${message}`);
    }
    const element = document.createElement("video");
    element.muted = element.playsInline = true;
    element.srcObject = stream;
    await element.play();
    return new BrowserCamera(stream, element);
  }

  /** Send the next picture. @param {import("../wire/session.js").Session} session */
  async send(session) {
    if (this.busy) return;
    this.busy = true;
    try {
      await Promise.race([
        new Promise((resolve) => this.element.requestVideoFrameCallback(() => resolve(null))),
        new Promise((resolve) => setTimeout(resolve, PATIENCE)),
      ]);
      const { videoWidth: width, videoHeight: height } = this.element;
      if (!width || !height) return;
      const scale = Math.min(1, LONGER_SIDE / Math.max(width, height));
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
      const context = /** @type {OffscreenCanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
      context.drawImage(this.element, 0, 0, this.canvas.width, this.canvas.height);
      session.sendBytes(await this.canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY }));
    } finally {
      this.busy = false;
    }
  }

  close() {
    this.stream.getTracks().forEach((track) => track.stop());
    this.element.srcObject = null;
  }
}
