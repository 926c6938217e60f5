// The lines of the drawing: from the router to each lane on the left, and the exceptions by the rail on the right. They
// run in the gaps between the nodes, as on a map of a metro, so that none crosses a name.

import { svg } from "./dom.js";
import { hue, state } from "./store.js";

const MOST = 16;
const RADIUS = 6;

/** Draw all lines anew. `ends(end)` gives `[element, "card" | "lane" | "bar"]` for an end of an exception, or null. */
export function route(drawing, ends) {
  drawing.querySelector(":scope > svg.wires")?.remove();
  const box = drawing.getBoundingClientRect();
  if (!box.width || drawing.querySelector(":scope > .lane") === null) return;
  const place = (element) => {
    const at = element.getBoundingClientRect();
    const [left, top] = [at.left - box.left, at.top - box.top];
    return { left, top, right: left + at.width, bottom: top + at.height, middle: left + at.width / 2 };
  };
  const made = svg("svg", { class: "wires", width: box.width, height: box.height, "aria-hidden": "true" });
  spine(made, drawing, place);
  rail(made, drawing, place, ends);
  drawing.append(made);
}

function spine(made, drawing, place) {
  const router = place(drawing.querySelector("#router"));
  const internet = place(drawing.querySelector("#internet"));
  const off = state.wan ? "" : " is-off";
  made.append(svg("path", { class: `uplink${off}`, d: `M${router.left + 24} ${internet.bottom}V${router.top}` }));
  const lanes = [...drawing.querySelectorAll(":scope > .lane")];
  const gap = Math.min(8, (place(lanes[0]).left - 6) / lanes.length);
  lanes.forEach((lane, index) => {
    const at = place(lane);
    const x = router.left + 5 + gap * (lanes.length - 1 - index);
    const points = [[x, router.bottom], [x, at.top + 27], [at.left, at.top + 27]];
    made.append(svg("path", { class: `leg ${hue(state.vlans[index].name)}`, d: rounded(points) }));
  });
}

function rail(made, drawing, place, ends) {
  const right = place(drawing.querySelector("#router")).right;
  const pairs = [];
  for (const one of state.exceptions) {
    for (const to of [one.to].flat()) pairs.push({ one, from: ends(one.from), to: ends(to) });
  }
  const shown = pairs.filter((pair) => pair.from && pair.to && pair.from[0] !== pair.to[0]).slice(0, MOST);
  for (const pair of shown) {
    pair.start = place(pair.from[0]);
    pair.end = place(pair.to[0]);
  }
  shown.sort((a, b) => Math.abs(a.start.top - a.end.top) - Math.abs(b.start.top - b.end.top));
  const used = new Map();
  const slot = (element) => {
    used.set(element, (used.get(element) ?? -1) + 1);
    return used.get(element);
  };
  shown.forEach((pair, index) => {
    const x = right + 9 + 9 * index;
    const start = leave(pair.from, pair.start, slot(pair.from[0]));
    const end = arrive(pair.to, pair.end, slot(pair.to[0]), slot(`gap above ${Math.round(pair.end.top)}`));
    const lineage = pair.one.from.vlan ? hue(pair.one.from.vlan) : "hue-0";
    const kind = pair.one.kind === "broadcast" ? " is-broadcast" : "";
    const points = [...start, [x, start.at(-1)[1]], [x, end[0][1]], ...end];
    const group = svg("g", { class: `exception ${lineage}${kind}` });
    group.append(
      svg("path", { class: "halo", d: rounded(points) }),
      svg("path", { class: "line", d: rounded(points) }),
      svg("path", { class: "head", d: head(end.at(-2) ?? [x, end[0][1]], end.at(-1)) }),
      svg("circle", { class: "foot", cx: start[0][0], cy: start[0][1], r: 2.5 }),
      label(pair, end, x),
    );
    made.append(group);
  });
}

/** From the bottom of a node into the gap below it; from the side of what is wide. */
function leave([, kind], at, slot) {
  if (kind === "card") {
    const [x, y] = [at.middle + 10 + 8 * slot, at.bottom + 7 + 4 * (slot % 3)];
    return [[x, at.bottom], [x, y]];
  }
  return [[at.right, kind === "lane" ? at.top + 10 + 7 * slot : at.top + 12 + 7 * slot]];
}

/** Into the top of a node from the gap above it; into the side of what is wide. */
function arrive([, kind], at, slot, line) {
  if (kind === "card") {
    const [x, y] = [at.middle - 10 - 8 * slot, at.top - 8 - 9 * (line % 2)];
    return [[x, y], [x, at.top]];
  }
  return [[at.right, kind === "lane" ? at.bottom - 8 - 9 * slot : at.bottom - 10 - 9 * slot]];
}

function label(pair, end, x) {
  const text = pair.one.ports.length ? pair.one.ports.join(" ") : "all";
  if (pair.to[1] === "card") {
    const room = x - end[0][0] > text.length * 6.4 + 14;
    const [at, anchor] = room ? [end[0][0] + 7, "start"] : [end[0][0] - 6, "end"];
    return svg("text", { x: at, y: end[0][1] + (room ? 3.500 : 4), "text-anchor": anchor, text });
  }
  return svg("text", { x: end[0][0] - 7, y: end[0][1] + 3.500, "text-anchor": "end", text });
}

function head([fromX, fromY], [x, y]) {
  if (Math.abs(fromY - y) > Math.abs(fromX - x)) return `M${x - 4} ${y - 6.500}L${x} ${y}L${x + 4} ${y - 6.500}Z`;
  return `M${x + 6.500} ${y - 4}L${x} ${y}L${x + 6.500} ${y + 4}Z`;
}

/** A path through points, each corner rounded. */
function rounded(points) {
  let path = `M${points[0].join(" ")}`;
  for (let index = 1; index < points.length - 1; index += 1) {
    const [before, corner, after] = [points[index - 1], points[index], points[index + 1]];
    const near = toward(corner, before);
    const far = toward(corner, after);
    path += `L${near.join(" ")}Q${corner.join(" ")} ${far.join(" ")}`;
  }
  return `${path}L${points.at(-1).join(" ")}`;
}

function toward([x, y], [otherX, otherY]) {
  const length = Math.hypot(otherX - x, otherY - y);
  const part = length ? Math.min(RADIUS, length / 2) / length : 0;
  return [x + (otherX - x) * part, y + (otherY - y) * part].map((one) => Math.round(one * 10) / 10);
}
