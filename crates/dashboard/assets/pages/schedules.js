// Schedules: when each runs next, and what became of its last ticks.

import { act, address, get, part, post } from "../api.js";
import { ago, button, facts, h, keyed, line, pill, show, table } from "../dom.js";
import { duration, moment, seconds } from "../format.js";

const RESULTS = { done: "good", running: "warn", failed: "bad", skipped: "warn", interrupted: "warn" };

// Ticks that are shown of each.
const TICKS = 10;

export function schedules(host, _parts, _query, signal) {
  const list = h("div", { class: "cards" });
  const none = h("p", { class: "empty", hidden: true }, "There are no schedules: a type with `schedule` has one.");
  const cards = keyed(list, ({ process }) => card(process, signal));
  const load = async () => {
    const view = await get("/v1/schedules", signal);
    none.hidden = view.schedules.length > 0;
    cards(view.schedules, ({ process }) => process);
  };
  return { title: "Schedules", node: h("section", {}, h("h1", {}, "Schedules"), none, list), every: [3_000, load] };
}

function card(process, signal) {
  const path = `/v1/schedules/${part(process)}/ticks`;
  const about = h("div");
  const ticks = table(
    `The last ticks of ${process}`,
    [["Time"], ["Result"], ["Took", "number"], ["Why not", "wide"]],
    "It has not ticked yet.",
  );
  let sign = "";
  const load = async () => {
    const view = await get(address(path, { n: TICKS }), signal);
    ticks.rows(view.ticks, ({ nominal, manual }) => `${nominal} ${manual}`, cells);
  };
  const run = async () => {
    now.disabled = true;
    await act(() => post(path), ({ error }) => (error ? `The tick of ${process} failed: ${error}` : `The tick of ${process} is done`));
    now.disabled = false;
    await load().catch(() => {});
  };
  const now = button("Run it now", run, { "aria-label": `Run a tick of ${process} now` });
  const update = (view) => {
    // The next tick is nearer with each look.
    load().catch(() => {});
    const next = JSON.stringify(view);
    if (next === sign) return;
    sign = next;
    show(about, aboutOf(view));
  };
  const name = h("a", { href: `#/types/${part(process)}` }, line(process));
  const node = h("article", { class: "card", data: { process } }, h("div", { class: "card-head" }, h("h2", {}, name), now), about, ticks.node);
  return { node, update };
}

function aboutOf({ schedule, time_zone, every_s, jitter_s, next }) {
  return facts([
    ["Runs", schedule ? h("code", {}, line(schedule)) : `each ${duration(every_s)}`],
    ["Time zone", time_zone && line(time_zone)],
    ["Late by up to", jitter_s > 0 ? seconds(jitter_s) : null],
    ["Next", next.length > 0 ? h("span", {}, moment(next[0].due), " (", ago(next[0].due), ")") : "never"],
    ["Then", next.length > 1 ? next.slice(1, 3).map(({ due }) => moment(due)).join(", ") : null],
  ]);
}

function cells({ nominal, manual, result, duration_s, error }) {
  return [
    [`${nominal} ${manual}`, () => [moment(nominal), manual ? [" ", pill("by hand")] : null]],
    [result, () => pill(result, RESULTS[result])],
    [seconds(duration_s)],
    [error ?? "", () => (error ? line(error, 300) : "")],
  ];
}
