// What the service is asked, and what it tells.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The JSON answer. Rejects with `Refused`, or with `TypeError` when there is no connection. */
export async function ask(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(path, { method, headers, body: sent, credentials: "same-origin", redirect: "error" });
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    answer = null;
  }
  if (!response.ok) throw new Refused(response.status, answer?.error ?? `${method} ${path}: ${response.status}`);
  return answer;
}

export const get = (path) => ask("GET", path);

/** A part of a path: names may hold any character. */
export const part = (text) => encodeURIComponent(text);

/**
 * The stream of events, opened; `read()` then calls back with each. It is read by hand and not by `EventSource`: that
 * tells nobody why it was refused, wants the names of all events beforehand, and cannot be resumed by another page.
 */
export async function stream(last, signal) {
  const headers = last === null ? {} : { "Last-Event-ID": String(last) };
  const response = await fetch("/events", { headers, signal, credentials: "same-origin", cache: "no-store" });
  if (!response.ok) throw new Refused(response.status, `GET /events: ${response.status}`);
  return async function read(call) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event !== null) call(event);
      }
    }
  };
}

function parse(block) {
  const event = { name: "message", id: null, data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "event") event.name = value;
    else if (field === "id") event.id = Number(value);
    else if (field === "data") event.data += value;
  }
  if (event.name === "message" && !event.data) return null;
  return { ...event, data: event.data ? JSON.parse(event.data) : {} };
}
