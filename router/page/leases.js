// The list of leases. Only the rows that can be seen are in the document, however many there are, and the one that Tab
// reaches: the arrow keys go on from there. A row stays the same element for as long as it is there, and focus with it.

import { get, part } from "./api.js";
import { byId, count, el, moment, put, span } from "./dom.js";
import { condition, containerOf, hue, keyOf, now, reservationOf, state, toNumber, watch } from "./store.js";

/** vlan/address -> `Line`: the rows in the document. */
const lines = new Map();
/** What holds the place of the rows that are not: above, below, and between the others and the one that Tab reaches. */
const gaps = [0, 1, 2].map(() => el("tr", { class: "gap", "aria-hidden": "true" }, el("td", { colspan: "6" })));
let shown = [];
/** The leases of another time: `{nodes, isFull, problem}`. Null is the present. */
let past = null;
/** How often another time was asked for: only the last answer is wanted. */
let asked = 0;
let sort = { by: "num", sign: 1 };
let open = () => {};
let height = 40;
/** The lease that Tab reaches: the one that had focus last, before that the first; and its place among those shown. */
let current = null;
let place = 0;

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
  scroll.addEventListener("keydown", move);
  watch(follow);
  setInterval(() => document.hidden || paint(), 30000);
}

/** Go on from the lease that Tab reaches; from the list itself, which holds the place of one that is gone, first to it. */
function move(event) {
  const scroll = byId("lease-scroll");
  const isOnRow = event.target.closest("tbody") !== null;
  if (!isOnRow && event.target !== scroll || !shown.length) return;
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const page = Math.max(1, Math.floor(scroll.clientHeight / height) - 2);
  const steps = {
    ArrowDown: isOnRow ? 1 : 0, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -shown.length, End: shown.length,
  };
  const step = steps[event.key];
  if (step === undefined) return;
  event.preventDefault();
  reach(Math.max(0, Math.min(place + step, shown.length - 1)));
  const { name } = lines.get(current);
  name.focus({ preventScroll: true });
  name.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function reach(index) {
  current = shown[index].key;
  place = index;
  paint();
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
  const all = past?.nodes ?? [...state.nodes.values()];
  shown = words.length ? all.filter((node) => words.every((word) => node.words.includes(word))) : all.slice();
  shown.sort(compare);
  const total = count(all.length, "lease") + (past?.isFull ? ", the latest: there may be more" : "");
  const found = words.length ? `${shown.length.toLocaleString("en-GB")} of ${total}` : total;
  put(byId("lease-count"), past?.problem ? "Not known" : found);
  const none = byId("lease-none");
  none.hidden = shown.length > 0;
  none.classList.toggle("error", Boolean(past?.problem));
  const why = all.length ? "Nothing matches: try a part of a name, an address or a MAC." : "No lease yet.";
  put(none, past?.problem || why);
  byId("lease-table").setAttribute("aria-rowcount", String(shown.length + 1));
  settle();
}

/** Find the lease that Tab reaches among those shown now. With focus it stays where it is seen, and the list moves. */
function settle() {
  const scroll = byId("lease-scroll");
  const before = place;
  const hasFocus = lines.get(current)?.name === document.activeElement;
  const found = shown.findIndex((node) => node.key === current);
  if (found < 0) {
    if (hasFocus) scroll.focus({ preventScroll: true });
    place = current === null ? 0 : Math.max(0, Math.min(place, shown.length - 1));
    if (current !== null) current = shown[place]?.key ?? null;
  } else {
    place = found;
  }
  paint();
  if (found < 0 || found === before || !hasFocus) return;
  scroll.scrollTop += (found - before) * height;
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

/** Have the rows that can be seen in the document, and hold the place of the others. */
function paint() {
  const scroll = byId("lease-scroll");
  const room = Math.ceil((scroll.clientHeight || 480) / height) + 8;
  const from = Math.max(0, Math.min(Math.floor(scroll.scrollTop / height) - 4, shown.length - room));
  const indexes = shown.slice(from, from + room).map((_, index) => from + index);
  if (place < from) indexes.unshift(place);
  else if (place >= from + room) indexes.push(place);
  const kept = new Set(indexes.map((index) => shown[index].key));
  for (const [key, line] of lines) {
    if (kept.has(key)) continue;
    line.element.remove();
    lines.delete(key);
  }
  const wanted = [];
  const free = [...gaps];
  let next = 0;
  for (const index of [...indexes, shown.length]) {
    if (index > next) wanted.push(hold(free.shift(), index - next));
    if (index < shown.length) wanted.push(draw(index));
    next = index + 1;
  }
  arrange(scroll.querySelector("tbody"), wanted);
}

function hold(gap, count) {
  const wanted = `${count * height}px`;
  if (gap.firstChild.style.height !== wanted) gap.firstChild.style.height = wanted;
  return gap;
}

function draw(index) {
  const node = shown[index];
  let line = lines.get(node.key);
  if (!line) {
    line = new Line(node.key);
    lines.set(node.key, line);
  }
  line.show(node, index);
  return line.element;
}

/** Make these the children, in this order. What has focus is not moved, for it would lose it: the others are. */
function arrange(body, wanted) {
  const focused = document.activeElement?.closest("tr");
  let at = body.firstChild;
  const drop = (end) => {
    while (at !== end) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  };
  for (const element of wanted) {
    if (element === focused) drop(element);
    if (element === at) at = at.nextSibling;
    else body.insertBefore(element, at);
  }
  drop(null);
}

class Line {
  constructor(key) {
    const show = () => open(key, byId("lease-scroll"));
    const reached = () => key === current || reach(shown.findIndex((node) => node.key === key));
    this.name = el("button", { type: "button", on: { click: show, focus: reached } });
    this.cells = ["address", "name", "state", "vlan", "mac", "ends"].map((name) => el("td", { class: name }));
    this.cells[1].append(this.name);
    this.element = el("tr", {}, ...this.cells);
    this.element.addEventListener("click", (event) => {
      if (event.target.closest("button") !== null || getSelection().toString()) return;
      this.name.focus({ preventScroll: true });
      show();
    });
  }

  show(node, index) {
    const [address, , said, vlan, mac, ends] = this.cells;
    this.element.setAttribute("aria-rowindex", String(index + 2));
    this.name.tabIndex = index === place ? 0 : -1;
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

/** What one answer of the history has at most. */
const MOST = 1000;

/** The list as it was at another time, by the history. */
async function travel() {
  const at = byId("at").value;
  byId("at-clear").hidden = !at;
  asked += 1;
  const mine = asked;
  const found = at ? await recall(at) : null;
  if (mine !== asked) return;
  past = found;
  refilter();
}

async function recall(at) {
  try {
    const rows = await get(`/history?limit=${MOST}&at=${part(new Date(at).toISOString())}`);
    const latest = new Map(rows.map(asNode).reverse().map((node) => [node.key, node])); // two may meet in that second
    return { nodes: [...latest.values()], isFull: rows.length === MOST, problem: "" };
  } catch (error) {
    return { nodes: [], isFull: false, problem: error.message };
  }
}

function asNode(row) {
  const key = keyOf(row.vlan, row.address);
  const label = row.container || row.hostname || "";
  const words = [row.address, label, row.mac, row.vlan, row.state].filter(Boolean).join(" ").toLowerCase();
  return { ...row, key, num: toNumber(row.address), label, words, was: row.state, until: `since ${moment(new Date(row.since))}` };
}
