/** The WebSocket of one video: verbs with their replies, events, masks. A lost connection is opened again by itself. */
const LOST = "Not connected to the studio. Your work is kept; this goes on as soon as it answers.";
const REFUSED = new Set([4401, 4403]); // no token, or a page of another origin: to ask again changes nothing
const OVER = 4404; // what it was about is not there any more
const NOT_ALLOWED = "This page may not talk to the studio. Open the address that the studio printed, with its token.";
const SLOWEST = 4; // seconds between two tries

export class Session {
  /**
   * @param {string} path Of the WebSocket.
   * @param {{event: (event: any) => void, binary: (data: ArrayBuffer) => void, connected: (connected: boolean) => void,
   *   over?: (message: string) => void}} handlers
   */
  constructor(path, handlers) {
    this.path = path;
    this.handlers = handlers;
    /** @type {Map<number, {resolve: (reply: any) => void, reject: (error: Error) => void}>} */ this.waiting = new Map();
    this.count = 0;
    this.tries = 0;
    this.closed = false;
    /** @type {WebSocket | null} */ this.socket = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */ this.timer = undefined;
    this.open();
  }

  open() {
    const address = new URL(this.path, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.tries = 0;
      this.handlers.connected(true);
    };
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return this.handlers.binary(data);
      const event = JSON.parse(data);
      if (event.event === "reply") this.reply(event);
      else this.handlers.event(event);
    };
    socket.onclose = ({ code, reason }) => {
      if (REFUSED.has(code) || code === OVER) this.closed = true;
      if (code === OVER) this.handlers.over?.(reason);
      this.lost();
      if (REFUSED.has(code)) this.handlers.event({ event: "error", error: { message: reason || NOT_ALLOWED } });
    };
    this.socket = socket;
  }

  lost() {
    this.waiting.forEach(({ reject }) => reject(new Error(LOST)));
    this.waiting.clear();
    if (this.closed) return;
    this.handlers.connected(false);
    this.timer = setTimeout(() => this.open(), 1000 * Math.min(SLOWEST, 0.25 * 2 ** this.tries++));
  }

  /** @param {any} reply */
  reply(reply) {
    const waiting = this.waiting.get(reply.id);
    this.waiting.delete(reply.id);
    if (reply.ok) waiting?.resolve(reply);
    else waiting?.reject(new Error(reply.error?.message ?? "The studio refused that."));
  }

  /** @param {string} verb @param {any} [fields] @returns {Promise<any>} */
  do(verb, fields = {}) {
    if (this.socket?.readyState !== WebSocket.OPEN) return Promise.reject(new Error(LOST));
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.socket?.send(JSON.stringify({ id, do: verb, ...fields }));
    });
  }

  /** Say something that has no reply. @param {string} verb @param {any} [fields] */
  tell(verb, fields = {}) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ do: verb, ...fields }));
  }

  /** @param {Blob} bytes */
  sendBytes(bytes) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(bytes);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }
}
