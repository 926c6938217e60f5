// The page's start: log in where that is needed, read everything once, then follow the events.

import * as activity from "./activity.js";
import { ask, get, Refused, stream } from "./api.js";
import * as detail from "./detail.js";
import { byId, moment, put } from "./dom.js";
import * as leases from "./leases.js";
import * as map from "./map.js";
import * as reach from "./reach.js";
import { state, takeContainers, takeLease, takeLeases, takeMap, takeReservations } from "./store.js";

const PATIENCE = [500, 1000, 2000, 5000];

let lastId = null;
let tries = 0;

/** The server has said that it does not know us: show the form, and come back when it does. */
function logIn() {
  byId("app").hidden = true;
  byId("login").hidden = false;
  byId("token").focus();
  return new Promise((resolve) => {
    loggedIn = resolve;
  });
}
let loggedIn = () => {};

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  put(byId("login-error"), "");
  try {
    await ask("POST", "/login", { token: byId("token").value.trim() });
    byId("token").value = "";
    byId("login").hidden = true;
    loggedIn();
  } catch (error) {
    put(byId("login-error"), sentence(error.message));
    byId("token").select();
  }
});

byId("logout").addEventListener("click", async () => {
  await ask("POST", "/logout");
  location.reload();
});

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

const THEMES = ["auto", "light", "dark"];

function theme() {
  const chosen = document.documentElement.dataset.theme ?? "auto";
  put(byId("theme"), `Theme: ${chosen}`);
  return chosen;
}

byId("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    if (next === "auto") localStorage.removeItem("theme");
    else localStorage.setItem("theme", next);
  } catch {
    // It holds until the page is left.
  }
  theme();
});

function live(name, text) {
  byId("live").dataset.state = name;
  put(byId("live-text"), text);
}

/** Everything that no event repeats. */
async function load() {
  const drawn = await get("/map");
  takeMap(drawn);
  byId("app").hidden = false;
  byId("logout").hidden = !drawn.session;
  put(byId("host"), state.host);
  put(byId("foot"), `Lanward ${state.version}, running since ${moment(new Date(state.since))}`);
  document.title = `${state.host}, Lanward`;
  await Promise.all([
    get("/leases").then(takeLeases),
    get("/reservations").then(takeReservations).catch(ignore),
    activity.load().catch(ignore),
    reach.load().catch(ignore),
  ]);
}

/** What is not there is not shown; that we are not known is told by what comes next. */
function ignore(error) {
  if (!(error instanceof Refused)) throw error;
}

const later = {};

/** Do something soon, once for all that ask for it meanwhile. */
function soon(name, wait, call) {
  if (later[name]) return;
  later[name] = setTimeout(async () => {
    delete later[name];
    await call().catch(() => {});
  }, wait);
}

function take({ name, id, data }) {
  if (id !== null) lastId = id;
  if (name === "resync") soon("all", 200, load);
  else if (name === "lease") takeLease(data);
  activity.take({ event: name, ...data });
  if (data.container) soon("containers", 250, async () => takeContainers(await get("/containers")));
  if (name.startsWith("reservations")) soon("reservations", 250, async () => takeReservations(await get("/reservations")));
  if (name === "reloaded") soon("all", 400, load);
  if (name === "rules_applied") soon("map", 400, async () => takeMap(await get("/map")));
  if (name === "verified") soon("reach", 100, reach.load);
  if (data.level && data.level !== "info" || name.includes("warning")) soon("warnings", 1000, activity.load);
}

const visible = () => document.hidden
  ? new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }))
  : Promise.resolve();

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** A hidden page holds no connection: a browser has six for one service, and a phone has a battery. */
async function follow() {
  let isKnown = false;
  for (;;) {
    await visible();
    const stop = new AbortController();
    const hide = () => document.hidden && stop.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      const read = await stream(lastId, stop.signal);
      if (!isKnown || lastId === null) await load(); // what was missed has no number yet
      isKnown = true;
      live("on", "Live");
      tries = 0;
      await read(take);
      throw new TypeError("the stream has ended");
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        await logIn();
        isKnown = false;
        continue;
      }
      if (document.hidden) continue;
      live("off", error instanceof Refused ? sentence(error.message) : "No connection, trying again");
      await pause(PATIENCE[Math.min(tries, PATIENCE.length - 1)]);
      tries += 1;
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
  }
}

theme();
map.start(detail.open);
leases.start(detail.open);
reach.start(() => {});
detail.start(async () => {
  const [rows, kept] = await Promise.all([get("/leases"), get("/reservations")]);
  takeLeases(rows);
  takeReservations(kept);
});
setInterval(() => document.hidden || soon("warnings", 0, activity.load), 60000);
follow();
