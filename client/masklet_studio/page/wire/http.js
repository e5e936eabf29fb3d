/** Requests to the gateway. Every failure becomes an `Error` with a sentence that a person can act on. */

const UNREACHABLE = "The studio does not answer. Is it still running? Start it again, and this page goes on.";

export class Refused extends Error {
  /** @param {string} message @param {number} status @param {any} body */
  constructor(message, status, body) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/**
 * @param {string} method @param {string} path @param {any} [body] JSON, or a `Blob` that is sent as it is.
 * @returns {Promise<any>}
 */
export async function request(method, path, body) {
  const raw = body instanceof Blob;
  let response;
  try {
    response = await fetch(path, {
      method,
      body: body === undefined ? undefined : raw ? body : JSON.stringify(body),
      headers: body === undefined ? {} : { "Content-Type": raw ? "application/octet-stream" : "application/json" },
    });
  } catch {
    throw new Refused(UNREACHABLE, 0, null);
  }
  const told = await response.json().catch(() => null);
  if (response.ok) return told;
  const message =
    response.status === 401 || response.status === 403
      ? (told?.error?.message ?? "This page may not do that. Open the address with its token, as the studio printed it.")
      : (told?.error?.message ?? `The studio answered ${response.status}.`);
  throw new Refused(message, response.status, told);
}
