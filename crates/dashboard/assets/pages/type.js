// One type: its figures, its instances, and how the last of them died.

import { act, part, post } from "../api.js";
import { ask } from "../dialogs.js";
import { ago, block, button, facts, h, line, pill, show, table } from "../dom.js";
import { bytes, clock, count, duration, figure, plural, visibleLine } from "../format.js";
import { charts, scale, standing, versions } from "./formation.js";

// Instances that are shown at once.
const SHOWN_MAX = 500;

const STATES = { idle: "good", busy: "good", starting: "warn", replacing: "warn", draining: "warn", backoff: "bad" };

export function type(host, [process = ""], _query, _signal) {
  const state = h("span", { class: "state" });
  const control = scale(host, process);
  const drawn = charts();
  const about = h("div");
  const death = h("section", { class: "stack", hidden: true });
  const more = h("p", { class: "empty", hidden: true });
  const none = h("p", { class: "empty", hidden: true }, `There is no type ${visibleLine(process)} in the formation.`);
  const instances = table(
    `Instances of ${process}`,
    [["Instance"], ["State"], ["Up", "number"], ["Calls", "number"], ["Restarts", "number"], ["CPU", "number"], ["Memory", "number"], ["Note", "wide"], ["", "act"]],
    "It has no instances.",
  );
  const all = button("Restart all", () => restart(host, process, `all instances of ${process}`));
  const content = h(
    "div",
    { class: "stack" },
    h("div", { class: "card" }, h("div", { class: "card-head" }, state, control.node, all, h("a", { href: `#/logs?target=${part(process)}` }, "Logs")), about, drawn.node),
    h("h2", {}, "Instances"),
    instances.node,
    more,
    death,
  );
  const node = h("section", {}, h("h1", {}, line(process)), none, content);
  const signs = {};
  const update = () => {
    // Its instances are on their way.
    if (!host.formation || host.has !== process) return;
    const types = versions(host.formation.types).find(([view]) => view.process === process);
    none.hidden = Boolean(types);
    content.hidden = !types;
    if (!types) return;
    control.update(types);
    drawn.update(host.history, process, types[0].trigger);
    const rows = types.flatMap((view) => view.instances.map((instance) => ({ ...instance, of: view })));
    const shown = rows.slice(0, SHOWN_MAX);
    more.hidden = shown.length === rows.length;
    more.textContent = `${plural(rows.length - shown.length, "instance")} more aren't shown.`;
    instances.rows(shown, (row) => `${row.name} ${row.of.release} ${row.of.canary}`, (row) => cells(host, row));
    once(signs, "state", types.map(standing), () => show(state, pill(types[0].trigger), types.flatMap(standing).map(([text, kind]) => pill(text, kind))));
    once(signs, "about", [types[0].weight, types[0].recycled, types[0].restarts, types[0].directories], () => show(about, aboutOf(types[0])));
    const crash = types.map((view) => view.last_crash).find(Boolean);
    once(signs, "death", crash ?? null, () => {
      death.hidden = !crash;
      show(death, crash && deathOf(crash));
    });
  };
  return { title: process, node, update };
}

/** Does it where the value isn't what it was. */
function once(signs, name, value, work) {
  const sign = JSON.stringify(value);
  if (signs[name] === sign) return;
  signs[name] = sign;
  work();
}

function cells(host, row) {
  const { name, state, uptime_s, calls, calls_now, restarts, recycled, cpu_s, memory_bytes, memory_max_bytes, note } = row;
  const memory = memory_max_bytes > 0 ? `${bytes(memory_bytes)} of ${bytes(memory_max_bytes)}` : bytes(memory_bytes);
  return [
    [name, () => h("a", { href: `#/logs?target=${part(name)}` }, line(name))],
    [`${state} ${row.of.canary} ${row.release}`, () => [pill(state, STATES[state]), row.of.canary ? [" ", pill(`v${row.release}`, "warn")] : null]],
    [duration(uptime_s)],
    [calls_now > 0 ? `${count(calls)} (${count(calls_now)} now)` : count(calls)],
    [`${count(restarts)}${recycled > 0 ? ` (+${count(recycled)} planned)` : ""}`],
    [`${figure(cpu_s)} s`],
    [memory],
    [note ?? "", () => (note ? line(note, 300) : "")],
    [`act ${name}`, () => button("Restart", () => restart(host, name, name), { class: "small", "aria-label": `Restart ${name}` })],
  ];
}

async function restart(host, target, named) {
  const yes = await ask(`Restart ${named}?`, "Each is replaced by a fresh one, which serves before the old one leaves. Calls under way finish.", "Restart", "primary");
  if (!yes) return;
  await act(() => post("/v1/restart", { target }), ({ restarted }) => `${plural(restarted, "instance")} of ${target} ${restarted === 1 ? "is" : "are"} being replaced`);
  host.look();
}

function aboutOf({ weight, recycled, restarts, directories }) {
  return facts([
    ["Restarts", count(restarts)],
    ["Planned replacements", count(recycled)],
    ["Weight", weight === 1 ? null : count(weight)],
    ...directories.map(({ guest, bytes: size, bytes_max }) => [`Directory ${visibleLine(guest)}`, `${bytes(size)} of ${bytes(bytes_max)}`]),
  ]);
}

function deathOf({ instance, time, cause, exit_code, starting, message, backtrace, lines }) {
  return [
    h("h2", {}, "How the last one died"),
    h(
      "div",
      { class: "card" },
      facts([
        ["Instance", line(instance)],
        ["When", ago(time)],
        ["Cause", pill(cause.replaceAll("_", " "), "bad")],
        ["Exit code", exit_code == null ? null : String(exit_code)],
        ["While it started", starting ? "yes" : null],
      ]),
      h("p", { class: "message" }, line(message)),
      backtrace && [h("h3", {}, "Backtrace"), block(backtrace)],
      lines.length > 0 && [h("h3", {}, "Its last lines"), block(lines.map(({ time: at, line: text }) => `${clock(at)} ${visibleLine(text)}`).join("\n"))],
    ),
  ];
}
