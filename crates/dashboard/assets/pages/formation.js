// The formation: each type with its count, its figures and the last hour.

import { act, part, post } from "../api.js";
import { chart } from "../charts.js";
import { ask } from "../dialogs.js";
import { button, h, keyed, line, pill, put, show } from "../dom.js";
import { bytes, count, figure, plural, seconds } from "../format.js";

/** What a type's calls are called. */
export const CALLS = { http: "Requests/s", queue: "Jobs/s", schedule: "Ticks/s" };

/** The newest of a list. */
export const newest = (list) => (list && list.length > 0 ? list[list.length - 1] : null);

export function formation(host) {
  const totals = h("dl", { class: "totals" });
  const sums = keyed(totals, ([name]) => {
    const value = h("dd");
    return { node: h("div", {}, h("dt", {}, name), value), update: ([, text]) => put(value, text) };
  });
  const list = h("div", { class: "cards" });
  const cards = keyed(list, (types) => card(host, types[0].process));
  const none = h("p", { class: "empty" }, "Waiting for the host …");
  const update = () => {
    const view = host.formation;
    if (!view) return;
    none.hidden = view.types.length > 0;
    sums(totalsOf(host), ([name]) => name);
    cards(versions(view.types), (types) => types[0].process);
  };
  return { title: "Formation", node: h("section", {}, h("h1", {}, "Formation"), totals, none, list), update };
}

/** The versions of each type, in the file's order. */
export function versions(types) {
  const byName = new Map();
  for (const view of types) byName.set(view.process, [...(byName.get(view.process) ?? []), view]);
  return [...byName.values()];
}

function totalsOf({ formation: { types }, history }) {
  const tracks = [...history.types.values()];
  const sum = (name, wanted = () => true) => tracks.filter(wanted).reduce((all, track) => all + (newest(track[name]) ?? 0), 0);
  const isHttp = ({ trigger }) => trigger === "http";
  const slowest = tracks.filter(isHttp).map((track) => newest(track.p99_s)).filter((value) => value != null);
  const wanted = versions(types).reduce((all, [view]) => all + view.count, 0);
  const serving = types.reduce((all, view) => all + view.actual, 0);
  return [
    ["Instances", serving === wanted ? count(serving) : `${count(serving)} of ${count(wanted)}`],
    ["Requests/s", figure(sum("per_s", isHttp))],
    ["p99", seconds(slowest.length > 0 ? Math.max(...slowest) : null)],
    ["Errors/s", figure(sum("failed_per_s"))],
    ["Waiting", count(sum("waiting"))],
    ["CPU", `${figure(sum("cpu") * 100)}%`],
    ["Memory", bytes(sum("memory_bytes"))],
  ];
}

function card(host, process) {
  const state = h("span", { class: "state" });
  const notes = h("div", { class: "notes" });
  const control = scale(host, process);
  const drawn = charts();
  const name = h("a", { href: `#/types/${part(process)}` }, line(process));
  const node = h(
    "article",
    { class: "card", data: { process } },
    h("div", { class: "card-head" }, h("h2", {}, name), state, control.node),
    notes,
    drawn.node,
  );
  let sign = "";
  const update = (types) => {
    control.update(types);
    drawn.update(host.history, process, types[0].trigger);
    const next = JSON.stringify([types.map(standing), notesOf(types)]);
    if (next === sign) return;
    sign = next;
    show(state, pill(types[0].trigger), types.map(standing).flat().map(([text, kind]) => pill(text, kind)));
    show(notes, notesOf(types).map((note) => h("p", {}, line(note, 300))));
  };
  return { node, update };
}

/** How a version stands, as words in colours. */
export function standing({ actual, desired, replacing, draining, canary, leaving, release, instances }) {
  const words = [];
  if (canary) words.push([`canary v${release}`, "warn"]);
  if (leaving) words.push([`v${release} leaves`, "warn"]);
  if (actual === desired) words.push([desired === 0 ? "none" : `${count(actual)} serving`, desired === 0 ? "" : "good"]);
  else words.push([`${count(actual)} of ${count(desired)} serving`, actual < desired ? "bad" : "warn"]);
  if (replacing > 0) words.push([`${count(replacing)} being replaced`, "warn"]);
  if (draining > 0) words.push([`${count(draining)} draining`, "warn"]);
  const waits = instances.filter((instance) => instance.state === "backoff").length;
  if (waits > 0) words.push([`${count(waits)} in backoff`, "bad"]);
  return words;
}

function notesOf(types) {
  return types.flatMap(({ restarts, last_end, lines_dropped, lines_past_max_log }) => {
    const notes = [];
    if (restarts > 0) notes.push(`${plural(restarts, "restart")}${last_end ? `, the last: ${last_end}` : ""}`);
    else if (last_end) notes.push(`The last that ended: ${last_end}`);
    const lost = lines_dropped + lines_past_max_log;
    if (lost > 0) notes.push(`${plural(lost, "log line")} dropped`);
    return notes;
  });
}

/** The control of a type's count. */
export function scale(host, process) {
  let asked = 0;
  let now = 0;
  const input = h("input", { type: "number", min: 0, max: 100_000, step: 1, inputmode: "numeric", "aria-label": `Instances of ${process}` });
  const undo = h("button", { type: "button", class: "small", onclick: () => reset() });
  const change = async (to) => {
    asked += 1;
    const done = await act(() => post("/v1/scale", { changes: [{ process, to }] }), ({ types }) => `${process}: ${plural(types.find((one) => one.process === process)?.desired ?? 0, "instance")}`);
    asked -= 1;
    if (!done) input.value = now;
    host.look();
  };
  const stop = () => ask(`Stop all instances of ${process}?`, "Its calls under way finish first. Then nothing of it runs until the count is raised again.", "Stop all");
  const set = async (wanted) => {
    if (wanted === now) return;
    if (wanted === 0 && !(await stop())) {
      input.value = now;
      return;
    }
    await change({ count: wanted });
  };
  const reset = () => act(() => post("/v1/scale", { reset: [process] }), `${process} has the file's count again`).then(host.look);
  const commit = () => {
    const wanted = Number(input.value);
    if (input.value === "" || !Number.isInteger(wanted) || wanted < 0) input.value = now;
    else set(wanted);
  };
  input.addEventListener("change", commit);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") input.value = now;
  });
  const fewer = button("−", () => (now <= 1 ? set(0) : change({ fewer: 1 })), { class: "step", "aria-label": `One instance of ${process} fewer` });
  const more = button("+", () => change({ more: 1 }), { class: "step", "aria-label": `One instance of ${process} more` });
  const node = h("div", { class: "scale", role: "group", "aria-label": `Count of ${process}` }, fewer, input, more, undo);
  const update = ([view]) => {
    now = view.count;
    fewer.disabled = now === 0;
    if (document.activeElement !== input && asked === 0) input.value = now;
    undo.hidden = view.count === view.in_file || view.leaving;
    put(undo, `File: ${count(view.in_file)}`);
    undo.setAttribute("aria-label", `Back to the file's count of ${process}, ${view.in_file}`);
  };
  return { node, update };
}

/** A type's last hour. */
export function charts() {
  const calls = chart("Calls/s", figure, [{ name: "all", kind: "main" }, { name: "failed", kind: "bad" }]);
  const times = chart("Time", seconds, [{ name: "p50", kind: "main" }, { name: "p99", kind: "second" }]);
  const waiting = chart("Waiting", count, [{ name: "waiting", kind: "second" }]);
  const cpu = chart("CPU", (value) => (value == null ? "–" : `${figure(value * 100)}%`), [{ name: "CPU", kind: "main" }]);
  const memory = chart("Memory", bytes, [{ name: "memory", kind: "main" }]);
  const node = h("div", { class: "charts" }, [calls, times, waiting, cpu, memory].map((one) => one.node));
  const update = (history, process, trigger) => {
    const track = history.types.get(process);
    const hasCalls = Object.hasOwn(CALLS, trigger);
    calls.node.hidden = !hasCalls;
    times.node.hidden = !["http", "queue"].includes(trigger);
    waiting.node.hidden = !hasCalls;
    put(calls.node.querySelector(".chart-label"), CALLS[trigger] ?? "Calls/s");
    if (!track) return;
    calls.update(history, [track.per_s, track.failed_per_s]);
    times.update(history, [track.p50_s, track.p99_s]);
    waiting.update(history, [track.waiting]);
    cpu.update(history, [track.cpu]);
    memory.update(history, [track.memory_bytes]);
  };
  return { node, update };
}
