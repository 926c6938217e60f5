// The list of leases. Only the rows that can be seen are in the document, however many there are.

import { get, part } from "./api.js";
import { byId, count, el, moment, put, span } from "./dom.js";
import { condition, containerOf, hue, keyOf, now, reservationOf, state, toNumber, watch } from "./store.js";

const rows = [];
let shown = [];
let past = null;
let sort = { by: "num", sign: 1 };
let open = () => {};
let height = 40;
let first = -1;

export function start(onOpen) {
  open = onOpen;
  const scroll = byId("lease-scroll");
  let waits = false;
  scroll.addEventListener("scroll", () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => {
      waits = false;
      paint();
    });
  }, { passive: true });
  new ResizeObserver(() => {
    height = Math.round(parseFloat(getComputedStyle(scroll).getPropertyValue("--row"))) || 40;
    first = -1;
    paint();
  }).observe(scroll);
  byId("search").addEventListener("input", refilter);
  byId("at").addEventListener("change", travel);
  byId("at-clear").addEventListener("click", () => {
    byId("at").value = "";
    travel();
    byId("at").focus();
  });
  for (const button of document.querySelectorAll("#lease-table thead button")) {
    button.addEventListener("click", () => order(button));
  }
  scroll.addEventListener("keydown", (event) => {
    if (event.target !== scroll || event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    scroll.scrollTop += event.key === "ArrowDown" ? height : -height;
    event.preventDefault();
  });
  watch(follow);
  setInterval(() => document.hidden || paint(), 30000);
}

const MANY = 4000;
let due = null;

/** Show what has changed; of very many leases the list is sorted once a second. */
function follow() {
  if (past !== null || due !== null) return;
  if (state.nodes.size < MANY) return refilter();
  due = setTimeout(() => {
    due = null;
    refilter();
  }, 1000);
}

function order(button) {
  const by = button.dataset.sort;
  sort = { by, sign: sort.by === by ? -sort.sign : 1 };
  for (const head of document.querySelectorAll("#lease-table th")) head.removeAttribute("aria-sort");
  button.closest("th").setAttribute("aria-sort", sort.sign > 0 ? "ascending" : "descending");
  refilter();
}

function refilter() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const all = past ?? [...state.nodes.values()];
  shown = words.length ? all.filter((node) => words.every((word) => node.words.includes(word))) : all.slice();
  shown.sort(compare);
  const total = count(all.length, "lease");
  put(byId("lease-count"), words.length ? `${shown.length.toLocaleString("en-GB")} of ${total}` : total);
  const none = byId("lease-none");
  none.hidden = shown.length > 0;
  put(none, all.length ? "Nothing matches: try a part of a name, an address or a MAC." : "No lease yet.");
  byId("lease-table").setAttribute("aria-rowcount", String(shown.length + 1));
  paint();
}

function compare(one, other) {
  const [a, b] = [value(one), value(other)];
  if (a !== b) {
    if (a === null || a === "") return 1;
    if (b === null || b === "") return -1;
    return (a < b ? -1 : 1) * sort.sign;
  }
  return one.num - other.num;
}

const value = (node) => node[sort.by] ?? null;

/** Fill as many rows as can be seen with what is there, and hold the place of the others. */
function paint() {
  const scroll = byId("lease-scroll");
  const body = scroll.querySelector("tbody");
  const room = Math.ceil((scroll.clientHeight || 480) / height) + 8;
  const from = Math.max(0, Math.min(Math.floor(scroll.scrollTop / height) - 4, shown.length - room));
  while (rows.length < room) {
    const row = new Line();
    rows.push(row);
    body.append(row.element);
  }
  if (!body.dataset.filled) {
    body.dataset.filled = "yes";
    body.prepend(el("tr", { class: "before", "aria-hidden": "true" }, el("td", { colspan: "6" })));
  }
  const before = body.querySelector(".before");
  let after = body.querySelector(".after");
  if (!after) after = el("tr", { class: "after", "aria-hidden": "true" }, el("td", { colspan: "6" }));
  if (body.lastChild !== after) body.append(after);
  rows.forEach((row, index) => row.show(shown[from + index], from + index));
  if (first !== from || after.dataset.of !== String(shown.length)) {
    first = from;
    after.dataset.of = String(shown.length);
    before.firstChild.style.height = `${from * height}px`;
    before.hidden = from === 0;
    const below = Math.max(0, shown.length - from - room) * height;
    after.firstChild.style.height = `${below}px`;
    after.hidden = below === 0;
  }
}

class Line {
  constructor() {
    this.node = null;
    this.name = el("button", { type: "button", on: { click: () => this.node && open(this.node.key) } });
    this.cells = ["address", "name", "state", "vlan", "mac", "ends"].map((name) => el("td", { class: name }));
    this.cells[1].append(this.name);
    this.element = el("tr", {}, ...this.cells);
    this.element.addEventListener("click", (event) => {
      if (event.target.closest("button") === null && this.node && !getSelection().toString()) open(this.node.key);
    });
  }

  show(node, index) {
    this.node = node ?? null;
    this.element.hidden = !node;
    if (!node) return;
    const [address, , said, vlan, mac, ends] = this.cells;
    this.element.setAttribute("aria-rowindex", String(index + 2));
    put(address, node.address);
    put(this.name, node.label || "no name");
    this.name.classList.toggle("is-none", !node.label);
    put(said, status(node));
    put(vlan, node.vlan);
    put(mac, node.mac ?? "");
    put(ends, until(node));
    const wanted = `${hue(node.vlan)}${node.state === "bound" ? "" : ` is-${node.state}`}`;
    if (this.element.className !== wanted) this.element.className = wanted;
  }
}

function status(node) {
  if (node.was) return node.was;
  const said = condition(node) || "bound";
  return reservationOf(node) && node.state !== "reserved" ? `${said}, reserved` : containerOf(node)?.problems.length ? `${said}, with a problem` : said;
}

function until(node) {
  if (node.was) return node.until ?? "";
  if (node.state === "reserved") return "";
  if (node.expires === null) return node.state === "bound" ? "never" : "";
  const left = node.expires - now();
  return left > 0 ? `in ${span(left)}` : `${span(-left)} ago`;
}

/** The list as it was at another time, by the history. */
async function travel() {
  const at = byId("at").value;
  byId("at-clear").hidden = !at;
  if (!at) {
    past = null;
    refilter();
    return;
  }
  try {
    past = (await get(`/history?limit=1000&at=${part(new Date(at).toISOString())}`)).map(asNode);
  } catch (error) {
    past = [];
    put(byId("lease-none"), error.message);
  }
  refilter();
}

function asNode(row) {
  const key = keyOf(row.vlan, row.address);
  const label = row.container || row.hostname || "";
  const words = [row.address, label, row.mac, row.vlan, row.state].filter(Boolean).join(" ").toLowerCase();
  return { ...row, key, num: toNumber(row.address), label, words, was: row.state, until: `since ${moment(new Date(row.since))}` };
}
