// The host, as the page asks it.

import { say } from "./dialogs.js";
import { KEPT_AS } from "./key.js";

// How long an answer may take that isn't a stream, in milliseconds.
const ANSWER_MAX = 30_000;

// How long to wait before a stream that broke off is asked for again.
const AGAIN_AFTER = 1_000;

/** The host says no, or there is no host. `lost` says that nobody answered. */
export class Refused extends Error {
  constructor(status, detail, lost = false) {
    super(detail);
    Object.assign(this, { status, lost });
  }
}

function headers() {
  return { "wasmhost-page-key": localStorage.getItem(KEPT_AS) ?? "", "content-type": "application/json" };
}

async function send(method, path, body, signal) {
  const options = { method, headers: headers(), signal };
  if (body !== undefined) options.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const late = error.name === "TimeoutError";
    const gone = "Nobody answers at the address of this page, which a host serves, or wasmhost dashboard.";
    throw new Refused(0, late ? "The host takes longer than 30 s to answer." : gone, true);
  }
  if (response.ok) return response;
  let detail = `The host answered ${response.status}.`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // It isn't from the host.
  }
  throw new Refused(response.status, detail, [502, 504].includes(response.status));
}

async function whole(method, path, body, signal) {
  const late = AbortSignal.timeout(ANSWER_MAX);
  const response = await send(method, path, body, signal ? AbortSignal.any([signal, late]) : late);
  const text = await response.text();
  return text === "" ? null : JSON.parse(text);
}

export const get = (path, signal) => whole("GET", path, undefined, signal);
export const post = (path, body) => whole("POST", path, body);
export const remove = (path) => whole("DELETE", path);

/** This browser is not in any more. */
export async function leave() {
  await post("/logout");
  localStorage.removeItem(KEPT_AS);
  location.replace("/");
}

/** Does something for a person, and says how it went. The answer, or nothing where it failed. */
export async function act(work, done) {
  try {
    const answer = await work();
    const text = typeof done === "function" ? done(answer) : done;
    if (text) say(text);
    return answer ?? true;
  } catch (error) {
    say(error.message, "bad");
    return undefined;
  }
}

/** The lines of an answer, as they come. */
export async function* lines(method, path, body, signal) {
  yield* pieces(await send(method, path, body, signal));
}

async function* pieces(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const pieces = (rest + value).split("\n");
    rest = pieces.pop();
    if (pieces.length > 0) yield pieces;
  }
  if (rest !== "") yield [rest];
}

/**
 * Follows a stream until `signal` ends it, and asks again where it breaks off. `path()` says where to go on, and `state(text)`
 * is told how it stands.
 */
export async function follow(path, take, state, signal) {
  while (!signal.aborted) {
    try {
      state("Connecting …");
      const response = await send("GET", path(), undefined, signal);
      state("Following");
      for await (const some of pieces(response)) {
        if (signal.aborted) return;
        take(some);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!error.lost && error instanceof Refused) return state(error.message, "bad");
    }
    if (signal.aborted) return;
    state("The host is gone. Waiting for it …", "bad");
    await new Promise((resolve) => setTimeout(resolve, AGAIN_AFTER));
  }
}

/** Path and query; values that are empty are left out. */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value != null);
  return given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`;
}

/** A part of a path. */
export const part = encodeURIComponent;
