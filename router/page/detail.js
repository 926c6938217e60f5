// One node, what was and what can be done about it; and a new reservation.

import { ask, get, part } from "./api.js";
import { byId, el, moment, put, span } from "./dom.js";
import { condition, containerOf, hue, now, reservationOf, state, vlanOf, watch } from "./store.js";

let key = null;
let back = null;
let done = () => {};

/** `onDone` is called when something was changed that no event tells of. */
export function start(onDone) {
  done = onDone;
  const dialog = byId("detail");
  dialog.addEventListener("close", () => {
    key = null;
    dialog.replaceChildren();
    if (document.activeElement === document.body) back?.focus({ preventScroll: true });
  });
  for (const one of [dialog, byId("reserve")]) {
    one.addEventListener("click", (event) => event.target === one && one.close());
  }
  watch((changed) => {
    if (key !== null && (changed.all || changed.nodes.has(key))) refresh();
  });
  byId("reserve-new").addEventListener("click", () => reserve({}));
}

/** Show the node `wanted`. `fallback` gets focus afterwards when what had it is gone. */
export function open(wanted, fallback = null) {
  key = wanted;
  back = fallback;
  const node = state.nodes.get(key);
  const dialog = byId("detail");
  const [vlan, address] = [key.slice(0, key.indexOf("/")), key.slice(key.indexOf("/") + 1)];
  dialog.className = hue(vlan);
  dialog.replaceChildren(
    el("header", {}, el("h2", { id: "detail-title", text: title(node) }), closer(dialog)),
    el("dl", { id: "facts" }),
    el("div", { id: "actions" }),
    el("p", { id: "outcome", class: "outcome", role: "status" }),
    el("h3", { text: "History" }),
    el("ol", { class: "log", id: "history" }, el("li", { class: "hint", text: "Reading" })));
  refresh();
  if (!dialog.open) dialog.showModal();
  remember(vlan, address);
}

const title = (node) => node?.label || node?.mac || "Nobody";

function closer(dialog) {
  return el("button", { type: "button", class: "quiet", text: "Close", on: { click: () => dialog.close() } });
}

function refresh() {
  const node = state.nodes.get(key);
  put(byId("detail-title"), title(node));
  const kind = node && containerOf(node);
  byId("facts").replaceChildren(...facts(node, kind).flatMap(([name, text]) => [el("dt", { text: name }), el("dd", { text })]));
  const actions = byId("actions");
  const wanted = choices(node).map((one) => one.text).join("|");
  if (actions.dataset.choices !== wanted && !actions.querySelector(".ask")) offer(actions, node);
}

function facts(node, box) {
  if (!node) return [["Address", key.slice(key.indexOf("/") + 1)], ["State", "free"]];
  const left = node.expires === null ? null : node.expires - now();
  const kept = reservationOf(node);
  return [
    ["Address", node.address],
    ["VLAN", node.vlan],
    ["State", condition(node) || "bound"],
    ["Kind", node.kind],
    ["MAC", node.mac],
    ["Client id", node.client_id],
    ["Lease", left === null ? null : left > 0 ? `ends in ${span(left)}` : `ended ${span(-left)} ago`],
    ["Reserved", kept ? (kept.origin === "state" ? `as ${kept.name}` : `as ${kept.name}, in the file`) : null],
    ["Docker", box ? `${box.state}, ${box.pinned ? `its lease since ${moment(new Date(box.pinned))}` : "without its lease"}` : null],
    ["Problem", box?.problems.join("; ") || null],
  ].filter(([, text]) => text);
}

/** What may be done: `text`, `sure` (what is asked back, if anything), `call`. */
function choices(node) {
  if (!node || vlanOf(node.vlan)?.dhcp === "external") return [];
  const [vlan, address] = [part(node.vlan), part(node.address)];
  if (node.state === "declined") {
    return [{ text: "Clear the quarantine", call: () => ask("DELETE", `/quarantine/${vlan}/${address}`) }];
  }
  const kept = reservationOf(node);
  const found = [];
  if (!kept && node.state !== "reserved") {
    found.push({ text: "Reserve this address", call: () => ask("POST", `/leases/${vlan}/${address}/reserve`) });
  }
  if (kept?.origin === "state") {
    found.push({
      text: "Remove the reservation",
      sure: `Then ${kept.address ?? kept.name} may be given to another.`,
      call: () => ask("DELETE", `/reservations/${vlan}/${part(kept.address ?? kept.name)}`),
    });
  }
  if (node.state === "bound" || node.state === "expired") {
    found.push({
      text: "Drop the lease",
      sure: `${node.address} is anybody's then; ${title(node)} hears of it when it renews.`,
      call: () => ask("DELETE", `/leases/${vlan}/${address}`),
    });
  }
  return found;
}

function offer(actions, node) {
  const found = choices(node);
  actions.dataset.choices = found.map((one) => one.text).join("|");
  actions.replaceChildren(...found.map((one) => el("button", {
    type: "button", text: one.text, on: { click: () => (one.sure ? askBack(actions, node, one) : carryOut(actions, node, one)) },
  })));
}

function askBack(actions, node, one) {
  const back = el("button", { type: "button", text: "Keep it", on: { click: () => offer(actions, node) } });
  actions.replaceChildren(el("div", { class: "ask", role: "group", "aria-label": one.text },
    el("p", { text: one.sure }),
    el("button", { type: "button", class: "danger", text: one.text, on: { click: () => carryOut(actions, node, one) } }), back));
  back.focus();
}

/** What becomes of it is told in the dialog that asked: meanwhile that may be closed, and another node be shown. */
async function carryOut(actions, node, one) {
  const outcome = byId("outcome");
  put(outcome, "");
  outcome.classList.remove("error");
  try {
    await one.call();
    put(outcome, "Done.");
    await done();
  } catch (error) {
    outcome.classList.add("error");
    put(outcome, error.message);
  }
  if (actions.isConnected) {
    delete actions.dataset.choices;
    actions.replaceChildren();
    refresh();
    actions.querySelector("button")?.focus();
  }
}

async function remember(vlan, address) {
  const list = byId("history");
  try {
    const rows = await get(`/history?limit=50&vlan=${part(vlan)}&address=${part(address)}`);
    list.replaceChildren(...rows.map(line));
    if (!rows.length) list.append(el("li", { class: "hint", text: "Nothing is remembered." }));
  } catch (error) {
    list.replaceChildren(el("li", { class: "hint", text: error.message }));
  }
}

function line(row) {
  const name = row.container || row.hostname || row.mac || "nobody";
  const isOver = row.until !== null && Date.parse(row.until) / 1000 < now();
  const said = [row.state === "declined" ? "in quarantine" : name, row.mac === name ? null : row.mac,
    isOver ? `until ${moment(new Date(row.until))}` : null];
  return el("li", {}, el("time", { datetime: row.since, text: moment(new Date(row.since)) }),
    el("span", { text: said.filter(Boolean).join(", ") }));
}

/** A form for a new reservation. */
function reserve(known) {
  const dialog = byId("reserve");
  const error = el("p", { class: "error", role: "alert" });
  const field = (name, label, attributes = {}, hint = null) => el("div", { class: "field" },
    el("label", { for: `new-${name}`, text: label }),
    el("input", { id: `new-${name}`, name, autocomplete: "off", spellcheck: "false", value: known[name] ?? "", ...attributes }),
    hint ? el("p", { class: "hint", text: hint }) : null);
  const form = el("form", { on: { submit: (event) => submit(event, form, error, dialog) } },
    el("header", {}, el("h2", { id: "reserve-title", text: "Add a reservation" }), closer(dialog)),
    el("div", { class: "field" }, el("label", { for: "new-vlan", text: "VLAN" }),
      el("select", { id: "new-vlan", name: "vlan" },
        ...state.vlans.filter((vlan) => vlan.dhcp === "own").map((vlan) => el("option", { value: vlan.name, text: `${vlan.name}, ${vlan.subnet}` })))),
    field("name", "Name", { required: true }),
    el("div", { class: "field" }, el("label", { for: "new-by", text: "Known by" }),
      el("select", { id: "new-by", name: "by" },
        el("option", { value: "mac", text: "MAC" }), el("option", { value: "client_id", text: "client identifier" }),
        el("option", { value: "container", text: "container name" }))),
    field("who", "Which is", { required: true, "aria-label": "The MAC, client identifier or container name" }),
    field("address", "Address", {}, "Left empty, it comes from the pool."),
    error, el("div", { class: "buttons" }, el("button", { type: "submit", class: "primary", text: "Reserve" })));
  dialog.replaceChildren(form);
  dialog.showModal();
}

async function submit(event, form, error, dialog) {
  event.preventDefault();
  const { vlan, name, by, who, address } = Object.fromEntries(new FormData(form));
  const body = { vlan, name: name.trim(), [by]: who.trim() };
  if (address.trim()) body.address = address.trim();
  try {
    await ask("POST", "/reservations", body);
    if (form.isConnected) dialog.close();
    await done();
  } catch (failure) {
    put(error, failure.message);
  }
}

