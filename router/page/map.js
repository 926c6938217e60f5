// The drawing: the internet, the router, a lane for each VLAN with its nodes, and the exceptions between them.

import { byId, count, el, glyph, put } from "./dom.js";
import { condition, containerOf, fill, hue, isThere, nodeOf, reservationOf, state, watch } from "./store.js";
import { route } from "./wires.js";

/** Nodes that are drawn of a lane: more would be a list, and that is below. */
const MOST = 30;

const lanes = new Map();
let drawing = null;
let open = () => {};

export function start(onOpen) {
  open = onOpen;
  drawing = byId("drawing");
  new ResizeObserver(() => route(drawing, ends)).observe(drawing);
  watch((changed) => {
    if (changed.all) build();
    let moved = changed.all;
    for (const [name, lane] of lanes) {
      if (changed.all || changed.vlans.has(name)) moved = lane.update(changed) || moved;
    }
    if (changed.all || changed.vlans.size) summarise();
    if (moved) route(drawing, ends);
  });
}

/** The elements that stand for an end of an exception: `[element, kind]`, or null when it is nowhere. */
function ends(end) {
  if (end.kind === "wan") return [byId("internet"), "bar"];
  if (end.kind === "router") return [byId("router"), "bar"];
  if (state.vlans.some((vlan) => vlan.router === end.address)) return [byId("router"), "bar"];
  const node = nodeOf(end);
  const card = node === null ? null : lanes.get(node.vlan)?.cards.get(node.key);
  if (card) return [card.element, "card"];
  const lane = lanes.get(end.vlan);
  return lane ? [lane.element, "lane"] : null;
}

let built = "";

/** The fixed parts; they are built anew only when the configuration is another. Nodes keep their elements, and focus. */
function build() {
  const wanted = JSON.stringify([state.vlans, state.exceptions, state.wan, state.host]);
  if (wanted === built) return updateRouter();
  built = wanted;
  const before = new Map(lanes);
  lanes.clear();
  for (const vlan of state.vlans) {
    const lane = before.get(vlan.name) ?? new Lane(vlan.name);
    lane.describe(vlan);
    lanes.set(vlan.name, lane);
  }
  drawing.style.setProperty("--rail", `${state.exceptions.length ? 10 + 9 * Math.min(state.exceptions.length, 16) : 0}px`);
  drawing.style.setProperty("--spine", `${8 + 8 * Math.min(state.vlans.length, 8)}px`);
  const focused = document.activeElement;
  drawing.replaceChildren(internet(), router(), ...[...lanes.values()].map((lane) => lane.element));
  if (drawing.contains(focused)) focused.focus({ preventScroll: true });
  const list = byId("exceptions");
  list.hidden = !state.exceptions.length;
  list.querySelector("ul").replaceChildren(...state.exceptions.map(exception));
  return updateRouter();
}

function internet() {
  const wan = state.wan;
  const text = wan === null ? "No uplink is configured" : wan.network ? `Docker network ${wan.network}` : "Uplink";
  const by = wan?.interface ? `by ${wan.interface}` : "";
  return el("div", { class: wan ? "bar internet" : "bar internet is-off", id: "internet" },
    el("h3", { text: "Internet" }), el("p", { text: [text, by].filter(Boolean).join(", ") }));
}

function router() {
  return el("div", { class: "bar router", id: "router" }, el("h3", { text: "Router" }), el("p", { id: "router-text" }));
}

function updateRouter() {
  const text = state.rules ? `Rules are not as configured: ${state.rules}` : "Rules as configured";
  put(byId("router-text"), text);
  byId("router").classList.toggle("is-bad", Boolean(state.rules));
}

const KINDS = { allow: "may reach", publish: "is published to", broadcast: "is heard in" };

function exception(one) {
  const targets = [one.to].flat().map((end) => end.text).join(", ");
  const from = one.kind === "broadcast" ? one.from.text : one.from.kind === "wan" ? "the internet" : one.from.text;
  return el("li", { class: one.from.vlan ? hue(one.from.vlan) : "" },
    el("span", { class: "from", text: from }), glyph("arrow"),
    el("span", { class: "unseen", text: KINDS[one.kind] }),
    el("span", { class: "to", text: targets }),
    el("span", { class: "ports", text: one.ports.length ? one.ports.join(", ") : "all ports" }),
    one.kind === "allow" ? null : el("span", { class: "kind", text: one.kind === "publish" ? "published" : "broadcast" }));
}

class Lane {
  constructor(name) {
    this.cards = new Map();
    this.meter = el("span", { class: "meter", role: "meter", "aria-label": `Pool of ${name}`, "aria-valuemin": "0" },
      el("span", {}));
    this.pool = el("span", { class: "pool-text" });
    this.list = el("ul", { class: "nodes" });
    this.more = el("a", { class: "more", href: "#leases", hidden: true });
    this.more.addEventListener("click", () => {
      byId("search").value = name;
      byId("search").dispatchEvent(new Event("input"));
    });
    this.empty = el("p", { class: "empty", text: "Nobody is here yet." });
    this.header = el("header");
    this.element = el("section", {}, this.header, el("div", { class: "body" }, this.list, this.empty, this.more));
  }

  /** Take what is configured. */
  describe(vlan) {
    this.vlan = vlan;
    const id = `lane-${vlan.index}`;
    this.element.className = `lane ${hue(vlan.name)}`;
    this.element.setAttribute("aria-labelledby", id);
    this.list.setAttribute("aria-labelledby", id);
    const facts = [
      vlan.known_only && "reservations only", vlan.guard && "guarded", vlan.encrypted_only && "encrypted only",
      vlan.dhcp === "external" && "another DHCP server",
    ].filter(Boolean);
    const has = vlan.dhcp === "own" && vlan.ranges.length;
    this.header.replaceChildren(...[
      el("h3", { id, text: vlan.name }),
      el("p", { class: "subnet", text: vlan.subnet }),
      el("p", { class: "facts", text: `Tag ${vlan.tag}, router ${vlan.router}` }),
      facts.length ? el("p", { class: "facts", text: facts.join(", ") }) : null,
      vlan.is_up ? null : el("p", { class: "bad", text: `${vlan.interface} is gone` }),
      has ? el("p", { class: "pool" }, this.meter, this.pool) : null,
    ].filter(Boolean));
  }

  /** Follow the store; true when cards came, went or changed their size. */
  update(changed) {
    const mine = [...state.nodes.values()].filter((node) => node.vlan === this.vlan.name);
    const drawn = mine.length <= MOST ? mine : rank(mine).slice(0, MOST);
    drawn.sort((one, other) => one.num - other.num);
    let moved = false;
    const wanted = new Set(drawn.map((node) => node.key));
    for (const [key, card] of this.cards) {
      if (wanted.has(key)) continue;
      card.element.remove();
      this.cards.delete(key);
      moved = true;
    }
    let before = null;
    for (const node of drawn) {
      let card = this.cards.get(node.key);
      if (!card) {
        card = new Card(node.key);
        this.cards.set(node.key, card);
        const next = before ? before.element.nextSibling : this.list.firstChild;
        this.list.insertBefore(card.element, next);
        moved = true;
      }
      if (changed.all || changed.nodes.has(node.key) || !card.node) moved = card.show(node, !changed.all) || moved;
      before = card;
    }
    this.empty.hidden = drawn.length > 0;
    const rest = mine.length - drawn.length;
    this.more.hidden = rest === 0;
    if (rest) put(this.more, `and ${rest.toLocaleString("en-GB")} more in the list`);
    this.showFill();
    return moved;
  }

  showFill() {
    const { size, used } = fill(this.vlan);
    const share = size ? used / size : 0;
    const text = size - used === 0 ? `full: ${count(size, "address", "addresses")}` : `${(size - used).toLocaleString("en-GB")} of ${size.toLocaleString("en-GB")} free`;
    put(this.pool, text);
    this.meter.firstChild.style.width = `${(share * 100).toFixed(1)}%`;
    this.meter.setAttribute("aria-valuemax", size);
    this.meter.setAttribute("aria-valuenow", used);
    this.meter.setAttribute("aria-valuetext", text);
    this.meter.classList.toggle("is-scarce", share >= 0.9);
  }
}

/** Who is drawn where not all can be: whom an exception names, containers and reservations, then who came last. */
function rank(nodes) {
  const named = new Set(state.exceptions.flatMap((one) => [one.from, one.to].flat()).map((end) => nodeOf(end)?.key));
  const ranked = nodes.map((node) => {
    const fixed = node.kind === "container" || reservationOf(node) !== undefined || node.state === "reserved";
    const place = named.has(node.key) ? 0 : isThere(node) ? (fixed ? 1 : 2) : fixed ? 3 : 4;
    return [place, -node.order, node.num, node];
  });
  ranked.sort((one, other) => one[0] - other[0] || one[1] - other[1] || one[2] - other[2]);
  return ranked.map((one) => one[3]);
}

class Card {
  constructor(key) {
    this.key = key;
    this.node = null;
    this.name = el("span", { class: "name" });
    this.address = el("span", { class: "address" });
    this.state = el("span", { class: "state" });
    this.icon = el("span", { class: "icon" });
    this.kept = el("span", { class: "unseen" });
    this.button = el("button", { type: "button", on: { click: () => open(this.key) } },
      this.icon, this.name, this.address, this.state, this.kept);
    this.element = el("li", { class: "node", "data-key": key }, this.button);
  }

  /** Follow a node; true when the card has grown or shrunk. `isLive`: what is new has just happened. */
  show(node, isLive) {
    const said = condition(node);
    const before = this.node;
    const kind = node.kind === "container" ? "container" : "device";
    if (before?.kind !== node.kind) this.icon.replaceChildren(glyph(kind), el("span", { class: "unseen", text: `${kind} ` }));
    put(this.name, node.label || node.mac || "no name");
    put(this.address, node.address);
    const grew = (this.state.textContent === "") !== (said === "");
    put(this.state, said);
    this.element.classList.toggle("is-away", !isThere(node));
    this.element.classList.toggle("is-bad", node.state === "declined");
    const isKept = reservationOf(node) !== undefined;
    this.element.classList.toggle("is-kept", isKept);
    put(this.kept, isKept ? "reserved" : "");
    if (isLive && node.state === "bound" && before?.state !== "bound") this.greet();
    this.node = node;
    return grew;
  }

  /** Draw attention to a node that has just come. */
  greet() {
    this.element.classList.add("is-new");
    setTimeout(() => this.element.classList.remove("is-new"), 1600);
  }
}

function summarise() {
  let devices = 0;
  let containers = 0;
  for (const node of state.nodes.values()) {
    if (!isThere(node)) continue;
    if (node.kind === "container" && containerOf(node)) containers += 1;
    else devices += 1;
  }
  put(byId("map-summary"),
    `${count(state.vlans.length, "VLAN")}, ${count(devices, "device")} and ${count(containers, "container")} with an address`);
}
