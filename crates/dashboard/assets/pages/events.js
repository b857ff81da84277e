// Events: everything that changes, as it does.

import { address, follow } from "../api.js";
import { button, field, h, line, pill, put, select } from "../dom.js";
import { clock, moment } from "../format.js";
import { versions } from "./formation.js";

// Events that are kept on the page.
const KEPT_MAX = 1_000;

const KINDS = ["host", "instance", "count", "release", "job", "jobs", "queue", "tick", "refusal"];

const BAD = ["crashed", "failed", "failed_to_start", "dead", "backoff"];
const GOOD = ["serving", "live", "done"];

export function events(host, _parts, query, signal) {
  const filter = { type: query.get("type") ?? "", kind: query.get("kind") ?? "" };
  const list = h("ol", { class: "log", tabindex: "0", "aria-label": "Events, the newest first", hidden: true });
  const none = h("p", { class: "empty" }, "Nothing has changed since this page was opened. Events are shown as they come.");
  const status = h("span", { class: "quiet", role: "status" });
  const go = (change) => {
    location.hash = address("#/events", { ...filter, ...change });
  };
  const types = select([["", "all types"]], "", (value) => go({ type: value }));
  const kinds = select([["", "all kinds"], ...KINDS.map((kind) => [kind, kind])], filter.kind, (value) => go({ kind: value }));
  let last = null;
  const take = (texts) => {
    const items = [];
    for (const text of texts) {
      if (text.startsWith("id: ")) last = text.slice(4);
      if (text.startsWith("data: ")) items.unshift(itemOf(text.slice(6)));
    }
    if (items.length === 0) return;
    none.hidden = true;
    list.hidden = false;
    list.prepend(...items);
    while (list.childElementCount > KEPT_MAX) list.lastElementChild.remove();
  };
  follow(() => address("/v1/events", { ...filter, after: last }), take, (text, kind = "") => {
    put(status, text);
    status.className = `quiet ${kind}`;
  }, signal);
  let offered = "";
  const update = () => {
    if (!host.formation) return;
    const names = [...new Set([...versions(host.formation.types).map(([view]) => view.process), filter.type].filter(Boolean))];
    if (names.join() === offered) return;
    offered = names.join();
    types.replaceChildren(...[["", "all types"], ...names.map((name) => [name, name])].map(([value, text]) => h("option", { value, selected: value === filter.type }, text)));
  };
  const clear = button("Clear", () => {
    list.replaceChildren();
    none.hidden = false;
    list.hidden = true;
  });
  const node = h("section", { class: "tall" }, h("h1", {}, "Events"), h("div", { class: "search" }, field("Type", types), field("Kind", kinds), clear, status), none, list);
  return { title: "Events", node, update };
}

function itemOf(text) {
  let event;
  try {
    event = JSON.parse(text);
  } catch {
    return h("li", {}, line(text));
  }
  const { time, kind, state } = event;
  const at = h("time", { datetime: time, title: moment(time) }, clock(time));
  const colour = BAD.includes(state) ? "bad" : GOOD.includes(state) ? "good" : "";
  const words = [h("span", { class: "from" }, kind), h("span", { class: "text" }, ...subject(event), state ? [" ", pill(state.replaceAll("_", " "), colour)] : null, detail(event))];
  return h("li", {}, at, words);
}

/** The thing that changed, with the way to it. */
function subject({ kind, instance, process, job, queue, release, from, to, count, tried }) {
  switch (kind) {
    case "instance":
      return [h("a", { href: `#/types/${encodeURIComponent(process)}` }, line(instance))];
    case "count":
      return [line(process), ` ${from} → ${to}`];
    case "release":
      return release == null ? ["a deploy"] : [h("a", { href: `#/release/${release}` }, `v${release}`)];
    case "job":
      return [h("a", { href: `#/job/${job}` }, `#${job}`), queue ? [" of ", line(queue, 80)] : ""].flat();
    case "jobs":
      return [`${count} jobs`, queue ? [" of ", line(queue, 80)] : ""].flat();
    case "queue":
      return [line(queue, 80)];
    case "tick":
      return [line(process)];
    case "refusal":
      return [line(process), " tried ", line(tried, 300)];
    case "missed":
      return [count == null ? "events are missing here" : `${count} events are missing here`];
    default:
      return ["the host"];
  }
}

function detail({ why, error, again_in_s, attempt, attempts_max, percent, instance, kind }) {
  const parts = [];
  if (kind === "job" && instance) parts.push(` on ${instance}`);
  if (attempt != null) parts.push(` (try ${attempt}${attempts_max == null ? "" : ` of ${attempts_max}`})`);
  if (percent != null) parts.push(` ${percent}%`);
  if (again_in_s != null) parts.push(` again in ${Math.round(again_in_s)} s`);
  const reason = why ?? error;
  return h("span", {}, parts.join(""), reason ? [": ", line(reason, 500)] : null);
}
