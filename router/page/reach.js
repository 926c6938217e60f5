// Who reaches whom: what the configuration says beside what was measured.

import { ask, get } from "./api.js";
import { byId, count, el, moment, put } from "./dom.js";
import { hue, vlanOf } from "./store.js";

let isBusy = false;

export function start(fail) {
  byId("measure").addEventListener("click", () => measure(fail));
}

async function measure(fail) {
  if (isBusy) return;
  isBusy = true;
  byId("measure").setAttribute("aria-disabled", "true");
  put(byId("measure"), "Measuring");
  try {
    show(await ask("POST", "/verify"));
  } catch (error) {
    put(byId("reach-summary"), `Not measured: ${error.message}`);
    fail(error);
  } finally {
    isBusy = false;
    byId("measure").removeAttribute("aria-disabled");
    put(byId("measure"), "Measure now");
  }
}

export async function load() {
  show(await get("/verify"));
}

function show(found) {
  const cells = new Map();
  const sources = [];
  const targets = [];
  for (const row of found.rows) {
    if (!sources.includes(row.source)) sources.push(row.source);
    const target = row.target;
    if (!targets.includes(target)) targets.push(target);
    const key = `${row.source}\n${target}`;
    cells.set(key, [...(cells.get(key) ?? []), row]);
  }
  const measured = found.rows.filter((row) => row.measured !== null);
  const wrong = measured.filter((row) => row.measured !== row.expected);
  summarise(found, measured, wrong);
  const parts = [];
  if (wrong.length) parts.push(differing(wrong));
  if (found.rows.length) {
    const columns = [...sources.filter((one) => targets.includes(one)), ...targets.filter((one) => !sources.includes(one))];
    parts.push(legend(wrong.length), table(sources, columns, cells), ...notes(found));
  } else parts.push(el("p", { class: "hint", text: "There is no node yet that could be asked." }));
  byId("reach-body").replaceChildren(...parts);
}

function summarise(found, measured, wrong) {
  let text = "Not measured yet: this is what the configuration says.";
  if (found.at !== null) {
    const when = moment(new Date(found.at));
    const good = measured.length - wrong.length;
    text = `${good.toLocaleString("en-GB")} of ${count(measured.length, "question")} answered as expected, ${when}.`;
    if (found.is_old) text += " The configuration was changed since.";
  }
  put(byId("reach-summary"), text);
  byId("reach-summary").classList.toggle("is-bad", wrong.length > 0);
}

function differing(wrong) {
  return el("ul", { class: "differs" }, ...wrong.slice(0, 50).map((row) =>
    el("li", { text: `${row.source} ${row.measured ? "reaches" : "does not reach"} ${row.target} (${row.service}): the configuration says ${row.expected ? "yes" : "no"}` })));
}

const short = (name) => name.replace(/^[^/]*\//, "");

/** The VLAN of an end as it is written: `vlan1/device1`, `router, vlan1`. */
function vlanIn(name) {
  const vlan = name.startsWith("router, ") ? name.slice(8) : name.split("/")[0];
  return vlanOf(vlan) ? vlan : null;
}

function head(name, scope) {
  const vlan = vlanIn(name);
  const written = name.startsWith("router, ") ? `router in ${name.slice(8)}` : short(name);
  return el("th", { scope, class: vlan ? hue(vlan) : "hue-0" },
    el("span", { class: "end" }, vlan && !name.startsWith("router") ? el("span", { class: "unseen", text: `${vlan}/` }) : null,
      el("span", { text: written })));
}

function table(sources, targets, cells) {
  const top = el("tr", {}, el("td", { class: "corner" }, el("span", { text: "from" }), el("span", { text: "to" })),
    ...targets.map((target) => head(target, "col")));
  const rows = sources.map((source) => el("tr", {}, head(source, "row"),
    ...targets.map((target) => cell(cells.get(`${source}\n${target}`)))));
  const made = el("table", { class: "matrix" },
    el("caption", { class: "unseen", text: "Rows ask, columns answer" }), el("thead", {}, top), el("tbody", {}, ...rows));
  return el("div", { class: "matrix-scroll", tabindex: "0", role: "region", "aria-label": "Table of reachability" }, made);
}

function cell(rows) {
  if (!rows) return el("td", { class: "none" });
  return el("td", {}, ...rows.map((row) => {
    const [mark, said] = verdict(row);
    return el("span", { class: `mark ${mark}` },
      el("span", { class: "unseen", text: `${row.service === "icmp" ? "" : `${row.service} `}${said}` }),
      row.service === "icmp" ? null : el("span", { class: "service", "aria-hidden": "true", text: row.service }));
  }));
}

function verdict({ expected, measured }) {
  if (measured === null) return expected ? ["yes-unknown", "yes, not measured"] : ["no-unknown", "no, not measured"];
  if (measured !== expected) return ["differs", `${measured ? "yes" : "no"}, but expected ${expected ? "yes" : "no"}`];
  return expected ? ["yes", "yes"] : ["no", "no"];
}

function legend(isWrong) {
  const items = [["yes", "reaches, measured"], ["no", "does not, measured"], ["yes-unknown", "should, not measured"],
    ["no-unknown", "should not, not measured"]];
  if (isWrong) items.push(["differs", "differs from the configuration"]);
  return el("ul", { class: "legend", "aria-hidden": "true" },
    ...items.map(([mark, text]) => el("li", {}, el("span", { class: `mark ${mark}` }), el("span", { text }))));
}

function notes(found) {
  const said = found.notes.map((note) => note[0].toUpperCase() + note.slice(1) + ".");
  if (found.rows.length) said.unshift("Asked from the router and from containers that run; devices cannot be asked from.");
  if (found.is_part) said.push(`Only ${count(found.nodes, "node")} are asked: lanward verify asks all.`);
  return said.length ? [el("p", { class: "hint", text: said.join(" ") })] : [];
}
