// What the page knows: the answers of the service, and what events have changed since.

export const state = {
  vlans: [],
  wan: null,
  host: "",
  version: "",
  since: null,
  rules: null,
  exceptions: [],
  /** vlan/address -> node: a row of /leases, with what the page makes of it. */
  nodes: new Map(),
  /** vlan/address -> row of /containers. */
  containers: new Map(),
  /** vlan/address or vlan/name -> row of /reservations. */
  reservations: new Map(),
  /** Seconds to add to this browser's clock for the service's. */
  offset: 0,
};

const dirty = { vlans: new Set(), nodes: new Set(), all: false };
let order = 0;
let pending = false;
let last = 0;
const watchers = [];

/** Be called, at most `RATE` times a second, with `{all, vlans, nodes}`: the names and keys of what has changed. */
export function watch(call) {
  watchers.push(call);
}

const RATE = 6;

function schedule() {
  if (pending) return;
  pending = true;
  const wait = Math.max(0, last + 1000 / RATE - performance.now());
  setTimeout(() => requestAnimationFrame(flush), wait);
}

function flush() {
  pending = false;
  last = performance.now();
  const changed = { all: dirty.all, vlans: new Set(dirty.vlans), nodes: new Set(dirty.nodes) };
  dirty.all = false;
  dirty.vlans.clear();
  dirty.nodes.clear();
  for (const call of watchers) call(changed);
}

export const keyOf = (vlan, address) => `${vlan}/${address}`;

export function toNumber(address) {
  return address.split(".").reduce((number, byte) => number * 256 + Number(byte), 0);
}

export const now = () => Date.now() / 1000 + state.offset;

/** Take the answer of /map: nodes that it does not name stay until the list of leases says what became of them. */
export function takeMap(map) {
  for (const name of ["wan", "host", "version", "since", "rules", "exceptions"]) state[name] = map[name];
  state.offset = Date.parse(map.now) / 1000 - Math.floor(Date.now() / 1000);
  state.vlans = map.vlans.map((vlan, index) => ({
    ...vlan,
    index,
    ranges: vlan.pools.map(([first, final]) => [toNumber(first), toNumber(final)]),
  }));
  takeContainers(map.containers);
  for (const row of map.nodes) takeRow(row);
  markAll();
}

export function takeLeases(rows) {
  const seen = new Set(rows.map((row) => keyOf(row.vlan, row.address)));
  for (const key of [...state.nodes.keys()]) if (!seen.has(key)) state.nodes.delete(key);
  for (const row of rows) takeRow(row);
  markAll();
}

export function takeContainers(rows) {
  state.containers = new Map(rows.filter((row) => row.address).map((row) => [keyOf(row.vlan, row.address), row]));
  markAll();
}

/** Take the rows of /reservations; those that are set aside are warned of, and hold nothing. */
export function takeReservations(rows) {
  const valid = rows.filter((row) => row.problem === null);
  state.reservations = new Map(valid.map((row) => [keyOf(row.vlan, row.address ?? row.name), row]));
  for (const [key, node] of state.nodes) {
    if (node.state === "reserved" && !state.reservations.has(key)) state.nodes.delete(key);
  }
  for (const row of valid) if (row.address && !state.nodes.has(keyOf(row.vlan, row.address))) takeRow(reservedRow(row));
  markAll();
}

export function markAll() {
  dirty.all = true;
  schedule();
}

function takeRow(row) {
  const key = keyOf(row.vlan, row.address);
  const before = state.nodes.get(key);
  const node = { ...row, key, num: toNumber(row.address) };
  node.label = node.container || node.hostname || "";
  node.expires_at = row.expires;
  node.expires = row.expires ? Date.parse(row.expires) / 1000 : null;
  node.words = [node.address, node.label, node.mac, node.vlan, node.state, node.client_id]
    .filter(Boolean).join(" ").toLowerCase();
  const arrived = node.state === "bound" && before?.state !== "bound";
  node.order = arrived ? ++order : (before?.order ?? 0);
  state.nodes.set(key, node);
}

/** Take the event of a changed lease. */
export function takeLease(event) {
  const key = keyOf(event.vlan, event.address);
  const before = state.nodes.get(key);
  const reserved = state.reservations.get(key);
  dirty.vlans.add(event.vlan);
  dirty.nodes.add(key);
  schedule();
  if (event.state === "free") {
    state.nodes.delete(key);
    if (reserved) takeRow(reservedRow(reserved));
    return;
  }
  const isHolder = event.state === "expired" || event.mac === before?.mac;
  const kept = isHolder ? before : null;
  const container = event.container ?? kept?.container ?? null;
  takeRow({
    vlan: event.vlan,
    address: event.address,
    state: event.state,
    kind: container ? "container" : "device",
    mac: event.mac ?? kept?.mac ?? null,
    client_id: kept?.client_id ?? null,
    hostname: event.hostname ?? kept?.hostname ?? reserved?.name ?? null,
    container,
    expires: event.expires === undefined ? kept?.expires_at ?? null : event.expires,
    fits: kept?.fits ?? true,
  });
}

function reservedRow({ vlan, address, mac, client_id, container, name }) {
  const kind = container ? "container" : "device";
  return { vlan, address, state: "reserved", kind, mac, client_id, container, hostname: name, expires: null };
}

export const vlanOf = (name) => state.vlans.find((vlan) => vlan.name === name);

/** The hue of a VLAN, as a class. */
export const hue = (name) => `hue-${((vlanOf(name)?.index ?? 0) % 6) + 1}`;

/** The container that a node is, when the engine has one. */
export const containerOf = (node) => state.containers.get(node.key);

export const reservationOf = (node) =>
  state.reservations.get(node.key) ?? (node.label ? state.reservations.get(keyOf(node.vlan, node.label)) : undefined);

/** What is to be said of a node beside its name: nothing when all is well. */
export function condition(node) {
  if (node.state === "declined") return "in quarantine";
  if (node.state === "reserved") return "not seen yet";
  const box = containerOf(node);
  if (box && box.state !== "running") return box.state;
  if (node.state === "expired") return "lease ended";
  if (box && !box.pinned) return "not pinned";
  return node.fits === false ? "outside the file" : "";
}

export const isThere = (node) => node.state === "bound" && ["running", undefined].includes(containerOf(node)?.state);

/** How a VLAN's pools are filled: addresses, and how many are somebody's. */
export function fill(vlan) {
  const size = vlan.ranges.reduce((sum, [first, final]) => sum + final - first + 1, 0);
  let used = 0;
  for (const node of state.nodes.values()) {
    if (node.vlan !== vlan.name || node.state === "reserved") continue;
    if (vlan.ranges.some(([first, final]) => first <= node.num && node.num <= final)) used += 1;
  }
  return { size, used };
}

/** The node that an end of an exception means; null when it is none, or none that is known. Whose a name is, the service
    says: a device can call itself anything. */
export function nodeOf(end) {
  return end.address === null ? null : state.nodes.get(keyOf(end.vlan, end.address)) ?? null;
}
