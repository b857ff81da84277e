// Releases: which there were, what each changed, and the way back.

import { address, get, lines, part } from "../api.js";
import { ask, progress, say } from "../dialogs.js";
import { ago, block, button, facts, h, line, pill, show, table } from "../dom.js";
import { bytes, plural, visibleLine } from "../format.js";

const STATES = { live: "good", canary: "warn", pending: "warn", failed: "bad", replaced: "" };

// Releases that are shown.
const LISTED = 50;

export function releases(host, _parts, _query, signal) {
  const canary = h("div", { class: "card", hidden: true });
  const list = table(
    "Releases",
    [["Release"], ["State"], ["By"], ["Made"], ["Changed", "wide"], ["", "act"]],
    "There are no releases yet.",
  );
  let sign = "";
  const load = async () => {
    const view = await get(address("/v1/releases", { n: LISTED }), signal);
    list.rows(view.releases, ({ number }) => String(number), (release) => cells(host, release, load));
    const trial = view.releases.find(({ state }) => state === "canary");
    const next = JSON.stringify(trial ?? null);
    if (next === sign) return;
    sign = next;
    canary.hidden = !trial;
    show(canary, trial && canaryOf(host, trial, load));
  };
  return { title: "Releases", node: h("section", {}, h("h1", {}, "Releases"), canary, list.node), every: [3_000, load] };
}

function canaryOf(host, { number, canary_percent }, reload) {
  return h(
    "div",
    { class: "card-head" },
    h("p", {}, `v${number} is on canary with ${canary_percent}% of requests and jobs.`),
    button("Promote it", () => change(host, `Promote v${number}?`, "It becomes live, for all requests and jobs.", "Promote", "/v1/promote", {}, reload), { class: "primary" }),
    button("Abort it", () => change(host, `Abort v${number}?`, "The live release has all requests and jobs again.", "Abort", "/v1/abort", undefined, reload), { class: "danger" }),
  );
}

function cells(host, release, reload) {
  const { number, state, author, created_at, changed, why, gone } = release;
  const note = why ?? (gone ? `(v${gone} is gone)` : changed.join(", "));
  const can = ["replaced"].includes(state);
  return [
    [`v${number}`, () => h("a", { href: `#/release/${number}` }, `v${number}`)],
    [state, () => pill(state, STATES[state])],
    [author, () => line(author, 60)],
    [created_at, () => ago(created_at)],
    [note, () => line(note, 200)],
    [`${state} act`, () => (can ? button("Roll back", () => rollBack(host, number, reload), { class: "small", "aria-label": `Roll back to v${number}` }) : "")],
  ];
}

const rollBack = (host, number, reload) =>
  change(host, `Roll back to v${number}?`, "It becomes live without a gap, under a new number. No release steps run.", "Roll back", "/v1/rollback", { to: number }, reload);

/** Orders something that takes a while, and shows how far it is. It goes on where nobody looks any more. */
async function change(host, question, detail, yes, path, body, reload) {
  if (!(await ask(question, detail, yes, "primary"))) return;
  const shown = progress(yes);
  const told = [];
  const tell = (text, kind) => {
    told.push(h("li", { class: kind }, visibleLine(text)));
    shown.update(h("ol", { class: "steps" }, told));
  };
  try {
    for await (const some of lines("POST", path, body)) {
      for (const text of some.filter((one) => one !== "")) {
        const event = JSON.parse(text);
        if (event.event === "changes") event.lines.forEach((one) => tell(one));
        else tell(...stepOf(event));
        if (shown.closed() && event.event === "live") say(`v${event.release} is live`);
      }
    }
  } catch (error) {
    tell(error.message, "bad");
  }
  host.look();
  await reload?.().catch(() => {});
}

/** A step's words, and its colour. */
function stepOf(event) {
  switch (event.event) {
    case "begun":
      return [`v${event.release} begins`];
    case "compiling":
      return [`Compiled ${event.done} of ${event.of}`];
    case "step":
      return [`The release step ${event.process} runs`];
    case "trying":
      return [`A first instance of ${event.process} is tried`];
    case "moving":
      return [`${event.done} of ${plural(event.of, "instance")} moved`];
    case "live":
      return [`v${event.release} is live`, "good"];
    case "canary":
      return [`v${event.release} has ${event.percent}%`, "good"];
    case "aborted":
      return [`v${event.release} is aborted, v${event.live} has everything`, "good"];
    case "unchanged":
      return [`Nothing is to be changed: v${event.release} is live`];
    case "failed":
      return [`Failed: ${event.why}. v${event.live} is live.`, "bad"];
    default:
      return [event.event];
  }
}

export function release(host, [number = ""], _query, signal) {
  const content = h("div", { class: "stack" }, h("p", { class: "empty" }, "Looking …"));
  let sign = "";
  const load = async () => {
    let view;
    try {
      view = await get(`/v1/releases/${part(number)}`, signal);
    } catch (error) {
      if (error.status !== 404) throw error;
      return show(content, h("p", { class: "empty" }, "There is no such release (any more)."));
    }
    const next = JSON.stringify(view);
    if (next === sign) return;
    sign = next;
    show(content, detailOf(host, view, load));
  };
  const back = h("p", {}, h("a", { href: "#/releases" }, "All releases"));
  return { title: `Release ${number}`, node: h("section", {}, h("h1", {}, `Release v${visibleLine(number)}`), back, content), every: [5_000, load] };
}

function detailOf(host, { release: view, before, changes, formation }, reload) {
  const { number, state, author, created_at, live_at, why, components } = view;
  const list = table("Components", [["Type"], ["File", "wide"], ["Size", "number"], ["SHA-256", "wide"]], "It has no components.");
  list.rows(components, ({ process }) => process, ({ process, file, bytes: size, digest }) => [[process, () => line(process)], [file, () => line(file, 200)], [bytes(size)], [digest, () => h("code", { class: "digest" }, digest)]]);
  return [
    h(
      "div",
      { class: "card" },
      h("div", { class: "card-head" }, h("span", { class: "state" }, pill(state, STATES[state])), state === "replaced" && button("Roll back to it", () => rollBack(host, number, reload))),
      facts([
        ["By", line(author)],
        ["Made", ago(created_at)],
        ["Live since", live_at && ago(live_at)],
        ["Before it", before && h("a", { href: `#/release/${before}` }, `v${before}`)],
      ]),
      why && h("p", { class: "message" }, line(why)),
    ),
    h("h2", {}, "Changes"),
    changes.length > 0 ? h("ul", { class: "changes" }, changes.map((change) => h("li", {}, line(change)))) : h("p", { class: "empty" }, "None, or none that are known."),
    h("h2", {}, "Components"),
    list.node,
    h("h2", {}, "Formation"),
    block(formation),
  ];
}
