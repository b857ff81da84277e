// The frame: which page is shown, and how the host stands. One question each two seconds serves all pages; a page that nobody
// looks at asks nothing.

import { Refused, act, address, get, leave } from "./api.js";
import { say } from "./dialogs.js";
import { h, line, pill, put, show } from "./dom.js";
import { duration } from "./format.js";
import { events } from "./pages/events.js";
import { formation } from "./pages/formation.js";
import { job } from "./pages/job.js";
import { jobs } from "./pages/jobs.js";
import { logs } from "./pages/logs.js";
import { queues } from "./pages/queues.js";
import { release, releases } from "./pages/releases.js";
import { schedules } from "./pages/schedules.js";
import { type } from "./pages/type.js";

// How often the host is asked, in milliseconds.
const LOOK_EVERY = 2_000;

// Pages by the first part of their address. A page is `(host, parts, query) => { title, node, update(), every: [ms, work] }`;
// its address is `#/part/part?query`.
const PAGES = { formation, types: type, queues, jobs, job, schedules, releases, release, logs, events };

// As the navigation has them: a page's name, and the pages that belong to it.
const NAVIGATION = [
  ["formation", "Formation", ["types"]],
  ["queues", "Queues", []],
  ["jobs", "Jobs", ["job"]],
  ["schedules", "Schedules", []],
  ["releases", "Releases", ["release"]],
  ["logs", "Logs", []],
  ["events", "Events", []],
];

// The host, as the page knows it.
const host = {
  formation: null,
  history: { newest: 0, samples: 1, times: [], types: new Map(), queues: new Map() },
  /** The type whose instances are wanted, and the one whose instances are there. */
  wanted: null,
  has: null,
  /** Asks at once, after something was changed. */
  look: () => look(),
};

let page = null;
let leaving = new AbortController();
let timer = null;
let isLooking = false;
let isLost = false;

// --- the pages

function at() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function go() {
  leaving.abort();
  leaving = new AbortController();
  const { parts, query } = at();
  const name = parts[0] ?? "formation";
  host.wanted = name === "types" ? parts[1] : null;
  const make = Object.hasOwn(PAGES, name) ? PAGES[name] : missing;
  page = make(host, parts.slice(1), query, leaving.signal);
  const main = document.getElementById("main");
  show(main, page.node);
  title();
  for (const link of document.querySelectorAll("#nav a")) {
    const isHere = link.dataset.pages.split(" ").includes(name);
    isHere ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  }
  window.scrollTo(0, 0);
  page.update?.();
  if (page.every) repeat(...page.every, leaving.signal);
  look();
}

function missing() {
  return { title: "Nothing here", node: h("section", {}, h("h1", {}, "Nothing here"), h("p", {}, h("a", { href: "#/formation" }, "To the formation"))) };
}

function title() {
  document.title = [page.title, host.formation?.name, "wasmhost"].filter(Boolean).join(" · ");
}

/** Does a page's own work now and then, as long as somebody looks at it. */
function repeat(ms, work, signal) {
  const again = async () => {
    if (!document.hidden && !isLost) {
      try {
        await work();
      } catch (error) {
        if (!signal.aborted && !(error instanceof Refused && error.lost)) failed(error);
      }
    }
    if (!signal.aborted) setTimeout(again, ms);
  };
  again();
}

// --- the host

async function look() {
  clearTimeout(timer);
  if (isLooking) return;
  isLooking = true;
  const wanted = host.wanted;
  try {
    const view = await get(address("/v1/overview", { type: wanted, after: host.history.newest }));
    host.formation = view.formation;
    host.has = wanted;
    merge(view.history);
    found();
    frame();
    page?.update?.();
  } catch (error) {
    failed(error);
  } finally {
    isLooking = false;
    if (!document.hidden) timer = setTimeout(look, wanted === host.wanted ? LOOK_EVERY : 0);
  }
}

/** Adds new samples to those that are known. */
function merge(next) {
  const known = host.history;
  const isOther = next.newest < known.newest || next.newest === 0;
  const news = next.times_ms.length;
  const joined = (before, list) => (isOther || list.length < news ? list : [...before, ...list]).slice(-next.samples_max);
  const tracks = (before, list, name) =>
    new Map(
      list.map((track) => {
        const old = before.get(track[name]);
        const whole = Object.entries(track).map(([key, value]) => [key, Array.isArray(value) ? joined(old?.[key] ?? [], value) : value]);
        return [track[name], Object.fromEntries(whole)];
      }),
    );
  host.history = {
    newest: next.newest,
    samples: Math.max(1, next.samples_max),
    every_s: next.every_s,
    times: joined(known.times, next.times_ms),
    types: tracks(known.types, next.types, "process"),
    queues: tracks(known.queues, next.queues, "queue"),
  };
}

function found() {
  const banner = document.getElementById("banner");
  if (isLost) say("The host is there again.");
  isLost = false;
  document.body.classList.remove("stale");
  const { starting, paused } = host.formation;
  const text = starting ? `The host is starting: ${starting}` : paused ? "Jobs and ticks are paused: no host takes any until somebody lets it go on (SIGUSR2)." : "";
  banner.className = "banner note";
  banner.hidden = text === "";
  put(banner, text);
}

function failed(error) {
  const banner = document.getElementById("banner");
  const isOut = [401, 403].includes(error.status);
  if (!(error instanceof Refused) || (!error.lost && !isOut)) return say(error.message, "bad");
  isLost = true;
  document.body.classList.add("stale");
  const text = isOut ? error.message : `The host is lost: ${error.message} It is looked for.`;
  banner.className = "banner bad";
  banner.hidden = false;
  if (!banner.textContent.startsWith(text)) show(banner, text, isOut && [" ", h("a", { href: "/" }, "Load the page again")]);
}

/** What stands beside every page. */
function frame() {
  const { name, release, canary, uptime_s, version, http } = host.formation;
  const app = document.getElementById("app");
  const sign = JSON.stringify([name, release, canary]);
  if (app.dataset.sign !== sign) {
    app.dataset.sign = sign;
    const shown = release > 0 && h("a", { href: `#/release/${release}`, class: "pill" }, `v${release}`);
    show(app, h("strong", {}, line(name)), " ", shown, canary ? [" ", pill(`canary v${canary.release} ${canary.percent}%`, "warn")] : null);
    title();
  }
  put(document.getElementById("about"), `up ${duration(uptime_s)} · ${version}${http.length > 0 ? ` · ${http[0]}` : ""}`);
}

// --- light and dark

const THEMES = ["auto", "light", "dark"];

function theme(next) {
  const chosen = THEMES.includes(next) ? next : "auto";
  document.documentElement.dataset.theme = chosen;
  localStorage.setItem("wasmhost-theme", chosen);
  const control = document.getElementById("theme");
  put(control, `Colours: ${chosen}`);
}

// --- the beginning

function begin() {
  const links = NAVIGATION.map(([name, label, others]) => h("a", { href: `#/${name}`, data: { pages: [name, ...others].join(" ") } }, label));
  show(document.getElementById("nav"), links);
  theme(localStorage.getItem("wasmhost-theme"));
  document.getElementById("theme").addEventListener("click", () => {
    const now = THEMES.indexOf(document.documentElement.dataset.theme);
    theme(THEMES[(now + 1) % THEMES.length]);
  });
  document.getElementById("leave").addEventListener("click", () => act(leave));
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
  window.addEventListener("hashchange", () => {
    go();
    // A person who goes by keys goes on from the new page.
    document.getElementById("main").focus({ preventScroll: true });
  });
  go();
}

begin();
