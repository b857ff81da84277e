// Logs: what instances write, or the host itself, and what they write on.

import { address, follow } from "../api.js";
import { button, field, h, line, put, select } from "../dom.js";
import { clock, moment, plural, visibleLine } from "../format.js";
import { versions } from "./formation.js";

// Lines that are kept on the page, and lines to begin with.
const KEPT_MAX = 2_000;
const FIRST = 200;

// Instances that are offered by name.
const OFFERED_MAX = 200;

const LEVELS = ["error", "warn", "info", "debug"];

export function logs(host, _parts, query, signal) {
  const target = query.get("target") ?? "";
  const level = query.get("level") ?? "";
  const list = h("ol", { class: "log", tabindex: "0", "aria-label": "Lines" });
  const status = h("span", { class: "quiet", role: "status" });
  const search = h("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const go = (change) => {
    location.hash = address("#/logs", { target, level, ...change });
  };
  const of = select([["", "all instances"], ["host", "the host itself"]], target, (value) => go({ target: value, level: "" }));
  const levels = select([["", "all levels"], ...LEVELS.map((name) => [name, `${name} and worse`])], level, (value) => go({ level: value }));
  let isHeld = false;
  let held = [];
  let newest = null;
  const wanted = (item) => search.value === "" || item.textContent.toLowerCase().includes(search.value.toLowerCase());
  const add = (items) => {
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    items.forEach((item) => (item.hidden = !wanted(item)));
    list.append(...items);
    while (list.childElementCount > KEPT_MAX) list.firstElementChild.remove();
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  };
  const hold = button("Hold", () => {
    isHeld = !isHeld;
    put(hold, isHeld ? "Go on" : "Hold");
    if (!isHeld) add(held.splice(0));
    tell();
  });
  const tell = () => put(hold, isHeld ? `Go on (${plural(held.length, "line")})` : "Hold");
  const take = (texts) => {
    const items = texts.filter((text) => text !== "").map((text) => itemOf(text, (time) => (newest = time)));
    if (!isHeld) return add(items);
    held.push(...items);
    held = held.slice(-KEPT_MAX);
    tell();
  };
  search.addEventListener("input", () => {
    for (const item of list.children) item.hidden = !wanted(item);
    list.scrollTop = list.scrollHeight;
  });
  let offered = "";
  const update = () => {
    if (!host.formation) return;
    const names = versions(host.formation.types).flatMap(([view]) => namesOf(view));
    const sign = JSON.stringify(names);
    if (sign === offered) return;
    offered = sign;
    const known = [...new Set([...names, target].filter((name) => name !== "" && name !== "host"))];
    of.replaceChildren(...[["", "all instances"], ["host", "the host itself"], ...known.map((name) => [name, name])].map(([value, text]) => h("option", { value, selected: value === target }, visibleLine(text))));
  };
  // After a break it goes on from the newest line, which may come a second time.
  const path = () => address("/v1/logs", { follow: "true", target, level: target === "host" ? level : "", ...(newest ? { since: newest, n: KEPT_MAX } : { n: FIRST }) });
  follow(path, take, (text, kind = "") => {
    put(status, text);
    status.className = `quiet ${kind}`;
  }, signal);
  const node = h(
    "section",
    { class: "tall" },
    h("h1", {}, "Logs"),
    h("div", { class: "search" }, field("Of", of), target === "host" && field("Level", levels), field("With the words", search), hold, button("Clear", () => list.replaceChildren()), status),
    list,
  );
  return { title: "Logs", node, update };
}

function namesOf({ process, count }) {
  const instances = Array.from({ length: Math.min(count, OFFERED_MAX) }, (_, at) => `${process}.${at + 1}`);
  return [process, ...instances];
}

/** A line, whichever it is: of a guest, or the host's own. */
function itemOf(text, note) {
  let told;
  try {
    told = JSON.parse(text);
  } catch {
    return h("li", {}, line(text));
  }
  const { time, instance, stream, line: written, level, message, ...rest } = told;
  if (time) note(time);
  if (written == null && message == null) return h("li", { class: "note" }, line(text));
  const from = instance ?? level ?? "";
  const others = Object.entries(instance == null ? rest : {}).filter(([name]) => name !== "target");
  const more = others.map(([name, value]) => ` ${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("");
  const kind = ["error", "warn"].includes(String(level).toLowerCase()) ? String(level).toLowerCase() : stream === "stderr" ? "stderr" : "";
  const at = h("time", { datetime: time, title: moment(time) }, clock(time));
  return h("li", { class: kind }, at, h("span", { class: "from" }, visibleLine(from)), h("span", { class: "text" }, line((written ?? message) + more)));
}
