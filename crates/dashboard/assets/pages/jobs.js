// Jobs: looked for by queue, state, unique key or id, a page at a time, and mended together.

import { act, address, get, post } from "../api.js";
import { ask, say } from "../dialogs.js";
import { ago, button, field, h, line, pill, select, table } from "../dom.js";
import { count, plural, relative, visibleLine } from "../format.js";
import { CAN, KINDS, STATES, jobsAt } from "./queues.js";

// Jobs on a page.
const PAGE = 50;

// The acts on many jobs, and the states of those jobs where a person names none.
const SWEEPS = [
  ["retry", "Retry all", ["dead"], "Each is put on its queue again, with all of its tries."],
  ["cancel", "Cancel all", CAN.cancel, "Those that run are ended. None of them is run again."],
  ["discard", "Discard all", CAN.discard, "They are deleted. Nothing brings them back."],
];

export function jobs(host, _parts, query, signal) {
  const filter = { queue: query.get("queue") ?? "", state: query.get("state") ?? "", key: query.get("key") ?? "", order: query.get("order") ?? "" };
  const after = query.get("after") ?? "";
  const list = table(
    "Jobs",
    [["Job"], ["Queue"], ["State"], ["Tries", "number"], ["Enqueued"], ["Due, or ended"], ["Last error", "wide"]],
    "There are no such jobs.",
  );
  const older = h("a", { hidden: true, class: "button" }, "Next page");
  const first = h("a", { hidden: after === "", class: "button", href: jobsAt(filter) }, "First page");
  const load = async () => {
    const view = await get(address("/v1/jobs", { ...filter, after, limit: PAGE }), signal);
    list.rows(view.jobs, ({ id }) => id, cells);
    older.hidden = view.next == null;
    if (view.next != null) older.href = jobsAt({ ...filter, after: view.next });
  };
  const node = h(
    "section",
    {},
    h("h1", {}, "Jobs"),
    search(filter, signal),
    h("div", { class: "actions" }, SWEEPS.map((sweep) => sweepButton(sweep, filter, load))),
    list.node,
    h("div", { class: "actions" }, first, older),
  );
  return { title: "Jobs", node, every: [3_000, load] };
}

function search(filter, signal) {
  const go = (change) => {
    location.hash = jobsAt({ ...filter, ...change });
  };
  const queue = select([["", "all queues"]], "", (value) => go({ queue: value }));
  const offer = (names) => {
    const known = [...new Set([...names, filter.queue].filter(Boolean))].sort();
    queue.append(...known.map((name) => h("option", { value: name, selected: name === filter.queue }, visibleLine(name))));
  };
  // One that can't be asked now leaves the choice as it is.
  get("/v1/queues", signal).then(({ queues: all }) => offer(all.map((one) => one.queue)), () => offer([]));
  const state = select([["", "all states"], ...STATES.map(([name]) => [name, name])], filter.state, (value) => go({ state: value }));
  const order = select([["", "newest first"], ["oldest", "oldest first"]], filter.order, (value) => go({ order: value }));
  const key = h("input", { type: "search", value: filter.key, autocomplete: "off", spellcheck: "false" });
  const id = h("input", { type: "text", inputmode: "numeric", autocomplete: "off", class: "short" });
  const form = h(
    "form",
    { class: "search", role: "search" },
    field("Queue", queue),
    field("State", state),
    field("Order", order),
    field("Unique key", key),
    field("Job", id),
    h("button", { type: "submit" }, "Look"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = id.value.trim();
    if (wanted === "") return go({ key: key.value });
    if (!/^\d+$/.test(wanted)) return say("A job is named by a number.", "bad");
    location.hash = `#/job/${wanted}`;
  });
  return form;
}

function cells(job) {
  const { id, queue, state, attempt, attempts_max, enqueued_at, run_at, ended_at, last_error, unique_key } = job;
  const when = ended_at ?? run_at;
  return [
    [`${id} ${unique_key ?? ""}`, () => [h("a", { href: `#/job/${id}` }, `#${id}`), unique_key ? [" ", h("span", { class: "quiet" }, line(unique_key, 60))] : null]],
    [queue, () => line(queue, 60)],
    [state, () => pill(state, KINDS[state])],
    [attempts_max == null ? count(attempt) : `${count(attempt)} of ${count(attempts_max)}`],
    [relative(enqueued_at), () => ago(enqueued_at)],
    [relative(when), () => ago(when)],
    [last_error ?? "", () => (last_error ? line(last_error, 200) : "")],
  ];
}

function sweepButton([verb, label, states, detail], filter, reload) {
  const wanted = filter.state === "" ? states : CAN[verb].filter((state) => state === filter.state);
  const of = [filter.queue && `of the queue ${filter.queue}`, filter.key && `with the key ${filter.key}`, wanted.length > 0 && `that are ${wanted.join(", ")}`];
  const sweep = async () => {
    const which = h("div", {}, h("p", {}, "Jobs ", line(of.filter(Boolean).join(" ")), "."), h("p", {}, detail));
    if (!(await ask(`${label}?`, which, label, verb === "retry" ? "primary" : "danger"))) return;
    const request = { states: wanted };
    if (filter.queue !== "") request.queue = filter.queue;
    if (filter.key !== "") request.unique_key = filter.key;
    await act(() => post(`/v1/jobs/${verb}`, request), ({ changed, note }) => `${plural(changed, "job")}: ${verb} done${note ? ` (${note})` : ""}`);
    await reload().catch(() => {});
  };
  return button(label, sweep, { disabled: wanted.length === 0 });
}
