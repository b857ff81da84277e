// Queues: how many jobs are in each state, and the last hour of each.

import { act, address, get, part, post } from "../api.js";
import { chart } from "../charts.js";
import { ago, facts, h, keyed, line, pill, put, show } from "../dom.js";
import { bytes, count, figure } from "../format.js";

/** The states of jobs, in the order of a job's life, with their colours. */
export const STATES = [
  ["scheduled", ""],
  ["available", "warn"],
  ["leased", "good"],
  ["retrying", "warn"],
  ["done", "good"],
  ["dead", "bad"],
  ["cancelled", ""],
];

export const KINDS = Object.fromEntries(STATES);

/** The states of jobs that it can be done to. */
export const CAN = {
  retry: ["scheduled", "retrying", "dead"],
  cancel: ["scheduled", "available", "leased", "retrying"],
  discard: ["scheduled", "available", "retrying", "done", "dead", "cancelled"],
};

/** The address of a list of jobs. */
export const jobsAt = (query) => address("#/jobs", query);

export function queues(host, _parts, _query, signal) {
  const list = h("div", { class: "cards" });
  const none = h("p", { class: "empty", hidden: true }, "There are no queues: a type with `queue` works one.");
  const cards = keyed(list, ({ queue }) => card(host, queue, () => load()));
  let known = [];
  const update = () => cards(known, ({ queue }) => queue);
  const load = async () => {
    const view = await get("/v1/queues", signal);
    known = view.queues;
    none.hidden = known.length > 0;
    update();
  };
  return { title: "Queues", node: h("section", {}, h("h1", {}, "Queues"), none, list), update, every: [2_000, load] };
}

function card(host, queue, reload) {
  const state = h("span", { class: "state" });
  const states = h("ul", { class: "states" });
  const about = h("div");
  const pause = h("button", { type: "button", onclick: () => toggle() });
  const flow = chart("Jobs/s", figure, [
    { name: "done", kind: "main" },
    { name: "put on it", kind: "second" },
    { name: "failed", kind: "bad" },
  ]);
  const waiting = chart("Waiting", count, [{ name: "waiting", kind: "second" }]);
  let now = {};
  let sign = "";
  const toggle = async () => {
    const [verb, done] = now.paused ? ["resume", `${queue} goes on`] : ["pause", `${queue} is paused: its running jobs finish`];
    await act(() => post(`/v1/queues/${part(queue)}/${verb}`), done);
    await reload().catch(() => {});
  };
  const update = (view) => {
    now = view;
    put(pause, view.paused ? "Resume" : "Pause");
    pause.setAttribute("aria-label", `${view.paused ? "Resume" : "Pause"} ${queue}`);
    const track = host.history.queues.get(queue);
    flow.node.hidden = waiting.node.hidden = !track;
    if (track) {
      flow.update(host.history, [track.done_per_s, track.enqueued_per_s, track.failed_per_s]);
      waiting.update(host.history, [track.waiting]);
    }
    const next = JSON.stringify(view);
    if (next === sign) return;
    sign = next;
    show(state, view.paused && pill("paused", "warn"), view.workers.length === 0 && pill("no type works it", "bad"));
    show(states, STATES.map(([name, kind]) => stateOf(queue, name, view[name], kind)));
    show(about, aboutOf(view));
  };
  const node = h(
    "article",
    { class: "card", data: { queue } },
    h("div", { class: "card-head" }, h("h2", {}, h("a", { href: jobsAt({ queue }) }, line(queue))), state, pause),
    states,
    about,
    h("div", { class: "charts" }, flow.node, waiting.node),
  );
  return { node, update };
}

function stateOf(queue, state, number, kind) {
  const link = h("a", { href: jobsAt({ queue, state }) }, h("span", { class: "amount" }, count(number)), " ", state);
  return h("li", { class: number > 0 ? kind : "" }, link);
}

function aboutOf({ workers, oldest_waiting, max_depth, max_bytes, max_per_second, concurrency }) {
  return facts([
    ["Worked by", workers.length > 0 && h("span", {}, workers.map((name, at) => [at > 0 ? ", " : "", h("a", { href: `#/types/${part(name)}` }, line(name))]).flat())],
    ["Waits for longest", oldest_waiting && ago(oldest_waiting)],
    ["At once, at most", concurrency && count(concurrency)],
    ["Waiting, at most", max_depth && count(max_depth)],
    ["Bytes, at most", max_bytes && bytes(max_bytes)],
    ["A second, at most", max_per_second && count(max_per_second)],
  ]);
}
