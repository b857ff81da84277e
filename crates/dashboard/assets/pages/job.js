// One job: its payload, its tries, and what can be done to it.

import { act, get, part, post, remove } from "../api.js";
import { ask } from "../dialogs.js";
import { ago, block, button, facts, h, line, pill, show, table } from "../dom.js";
import { bytes, count, duration, moment, visibleLine } from "../format.js";
import { CAN, KINDS, jobsAt } from "./queues.js";

export function job(host, [id = ""], _query, signal) {
  const content = h("div", { class: "stack" }, h("p", { class: "empty" }, "Looking …"));
  const path = `/v1/jobs/${part(id)}`;
  let sign = "";
  const attempts = table(
    "Tries that didn't go well",
    [["Try", "number"], ["Ended"], ["How"], ["Took", "number"], ["Error", "wide"]],
    "No try has failed so far.",
  );
  const load = async () => {
    let view;
    try {
      view = await get(path, signal);
    } catch (error) {
      if (error.status !== 404) throw error;
      sign = "";
      return show(content, h("p", { class: "empty" }, "There is no such job (any more)."), h("a", { href: "#/jobs" }, "To the jobs"));
    }
    const next = JSON.stringify(view);
    if (next === sign) return;
    sign = next;
    attempts.rows([...view.attempts].reverse(), ({ claim }) => String(claim), cells);
    show(content, shown(view, attempts.node, act_));
  };
  const act_ = async (work, done) => {
    await act(work, done);
    await load().catch(() => {});
  };
  const shown = (view, tries, does) => {
    const can = (states) => states.includes(view.state);
    const discard = async () => {
      if (await ask(`Discard job ${id}?`, "It is deleted. Nothing brings it back.", "Discard")) await does(() => remove(path), "The job is discarded");
    };
    return [
      h(
        "div",
        { class: "card" },
        h(
          "div",
          { class: "card-head" },
          h("span", { class: "state" }, pill(view.state, KINDS[view.state])),
          button("Retry", () => does(() => post(`${path}/retry`), "The job is on its queue again"), { disabled: !can(CAN.retry) }),
          button("Cancel", () => does(() => post(`${path}/cancel`), "The job is cancelled"), { disabled: !can(CAN.cancel) }),
          button("Discard", discard, { disabled: !can(CAN.discard), class: "danger" }),
        ),
        aboutOf(view),
        view.last_error && h("p", { class: "message" }, line(view.last_error)),
      ),
      h("h2", {}, "Payload"),
      payloadOf(view),
      view.metadata.length > 0 && [h("h2", {}, "Metadata"), facts(view.metadata.map(([name, value]) => [visibleLine(name), line(value)]))],
      h("h2", {}, "Tries that didn't go well"),
      tries,
    ].flat();
  };
  return { title: `Job ${id}`, node: h("section", {}, h("h1", {}, `Job ${visibleLine(id)}`), content), every: [2_000, load] };
}

function aboutOf(view) {
  const { queue, instance, attempt, attempts_max, crashes, priority, unique_key, content_type, enqueued_at, run_at, started_at, ended_at } = view;
  return facts([
    ["Queue", h("a", { href: jobsAt({ queue }) }, line(queue))],
    ["Instance", instance && h("a", { href: `#/logs?target=${part(instance)}` }, line(instance))],
    ["Tries", attempts_max == null ? count(attempt) : `${count(attempt)} of ${count(attempts_max)}`],
    ["Crashes", crashes > 0 ? count(crashes) : null],
    ["Priority", priority === 0 ? null : String(priority)],
    ["Unique key", unique_key && line(unique_key)],
    ["Content type", content_type && line(content_type)],
    ["Enqueued", ago(enqueued_at)],
    ["Due", ago(run_at)],
    ["Began", started_at && ago(started_at)],
    ["Ended", ended_at && ago(ended_at)],
  ]);
}

function payloadOf({ payload, payload_base64, payload_bytes }) {
  if (payload_bytes === 0) return h("p", { class: "empty" }, "It is empty.");
  const note = payload_base64 == null ? bytes(payload_bytes) : `${bytes(payload_bytes)} that aren't text, in base64`;
  return h("div", { class: "close" }, h("p", { class: "quiet" }, note), block(payload ?? payload_base64));
}

function cells({ attempt, started_at, ended_at, end, error }) {
  const took = started_at && (new Date(ended_at) - new Date(started_at)) / 1000;
  return [
    [String(attempt)],
    [moment(ended_at)],
    [end, () => pill(end, ["failed", "crashed"].includes(end) ? "bad" : "warn")],
    [took == null ? "–" : took < 1 ? `${Math.round(took * 1000)} ms` : duration(took)],
    [error ?? "", () => (error ? line(error) : "")],
  ];
}
