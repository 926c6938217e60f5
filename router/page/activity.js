// What happens, in words: the latest events, and the warnings that stand.

import { get } from "./api.js";
import { byId, clock, el, moment, put } from "./dom.js";

const MOST = 60;
const waiting = [];
let pending = false;
let heard = [];
let speaking = false;

/** Take an event of the stream. */
export function take(event) {
  if (event.event === "lease" || event.event === "resync") return;
  waiting.push(event);
  if (waiting.length > MOST) waiting.shift();
  if (!pending) {
    pending = true;
    setTimeout(() => requestAnimationFrame(write), 250);
  }
  if (LOUD.has(event.event) || event.level !== "info") say(words(event));
}

function write() {
  pending = false;
  const list = document.querySelector("#activity .log");
  byId("log-none").hidden = true;
  const made = waiting.splice(0).reverse().map((event) => el("li", { class: `is-${event.level}` },
    el("time", { datetime: event.at, text: clock(new Date(event.at)) }), el("span", { text: words(event) })));
  list.prepend(...made);
  while (list.childElementCount > MOST) list.lastElementChild.remove();
}

const LOUD = new Set(["granted", "released", "reloaded", "pinned", "lease_dropped", "reservations_changed"]);

/** Say it to who listens; one sentence every four seconds, however much happens. */
function say(text) {
  heard.push(text);
  if (speaking) return;
  speaking = true;
  setTimeout(() => {
    const many = heard.length > 1 ? `${heard.length} changes, the last: ` : "";
    put(byId("said"), many + heard.at(-1));
    heard = [];
    speaking = false;
  }, heard.length > 1 ? 4000 : 400);
}

const who = (event) => event.container ?? event.hostname ?? event.mac ?? "Somebody";

const SENTENCES = {
  granted: (event) => `${who(event)} has ${event.address} in ${event.vlan}`,
  renewed: (event) => `${who(event)} keeps ${event.address} in ${event.vlan}`,
  released: (event) => `${who(event)} has given ${event.address} back`,
  expired: (event) => `The lease of ${who(event)} on ${event.address} has ended`,
  declined: (event) => `${event.mac} says that ${event.address} is in use: in quarantine`,
  conflict: (event) => `${event.mac} answers for ${event.address}, which it was not given: in quarantine`,
  quarantine_ended: (event) => `${event.address} is out of quarantine`,
  quarantine_cleared: (event) => `The quarantine of ${event.address} was cleared`,
  lease_dropped: (event) => `The lease of ${who(event)} on ${event.address} was dropped`,
  reservations_changed: (event) => `Reservations were changed: ${[event.changes].flat().join("; ")}`,
  refused: (event) => `${event.mac} was refused ${event.address}: ${event.why}`,
  pool_full: (event) => `The pool of ${event.vlan} is full`,
  pinned: (event) => `${event.container} runs with ${event.address} in ${event.vlan}`,
  reloaded: (event) => `The configuration was read again: ${[event.changes].flat().join("; ") || "nothing has changed"}`,
  reload_refused: (event) => `The configuration was not taken: ${[event.errors].flat().join("; ")}`,
  verified: (event) => `Reachability was measured: ${event.differing ? `${event.differing} of ${event.rows} differ` : "all as expected"}`,
};

function words(event) {
  const sentence = SENTENCES[event.event];
  if (sentence) return sentence(event);
  const { id, at, level, event: name, ...fields } = event;
  const said = Object.entries(fields).filter(([, value]) => value !== null)
    .map(([key, value]) => `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  const text = name.replaceAll("_", " ");
  return [text[0].toUpperCase() + text.slice(1), said.join(", ")].filter(Boolean).join(": ");
}

/** The warnings that stand. */
export async function load() {
  const found = await get("/warnings");
  const section = byId("warnings");
  section.hidden = !found.length;
  section.querySelector("ul").replaceChildren(...found.map((one) => el("li", {},
    el("p", { class: "what" }, one.subject ? el("strong", { text: `${one.subject}: ` }) : null,
      el("span", { text: one.what.startsWith(`${one.subject}: `) ? one.what.slice(one.subject.length + 2) : one.what })),
    one.cure ? el("p", { class: "cure", text: one.cure }) : null,
    one.since ? el("p", { class: "since" }, el("time", { datetime: one.since, text: `since ${moment(new Date(one.since))}` })) : null)));
}
