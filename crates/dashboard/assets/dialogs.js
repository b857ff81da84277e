// Questions, messages, and texts that are too long for their place.

import { button, h, show } from "./dom.js";
import { bytes, visible } from "./format.js";

// Characters of a long text that are shown at once.
const PIECE = 100_000;

// How long a message stays, in milliseconds, and how many there are at once.
const MESSAGE_FOR = 6_000;
const MESSAGES_MAX = 4;

/** Says something at the edge of the page. */
export function say(text, kind = "good") {
  const toasts = document.getElementById("toasts");
  // A second failure of the same is said once.
  for (const before of toasts.children) if (before.dataset.text === text) return;
  const message = h("div", { class: `toast ${kind}`, data: { text } }, visible(text));
  message.append(button("×", () => message.remove(), { class: "plain", "aria-label": "Close this message" }));
  toasts.append(message);
  while (toasts.childElementCount > MESSAGES_MAX) toasts.firstElementChild.remove();
  // A failure stays until it was read.
  if (kind !== "bad") setTimeout(() => message.remove(), MESSAGE_FOR);
}

/** Asks a person; true where the answer is yes. */
export function ask(question, detail, yes, kind = "danger") {
  return new Promise((resolve) => {
    const heading = h("h2", { id: "question" }, question);
    const accept = button(yes, () => dialog.close("yes"), { class: kind });
    const dialog = open(heading, [
      detail instanceof Node ? detail : h("p", {}, detail),
      h("div", { class: "actions" }, button("Leave it", () => dialog.close("")), accept),
    ]);
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"));
    accept.focus();
  });
}

/** A dialog whose content changes: `update(nodes)`, and `end()` when it may be closed. */
export function progress(title) {
  const heading = h("h2", { id: "question" }, title);
  const content = h("div", { role: "status", "aria-live": "polite" });
  const close = button("Close", () => dialog.close());
  const dialog = open(heading, [content, h("div", { class: "actions" }, close)]);
  return { update: (...nodes) => show(content, ...nodes), closed: () => !dialog.isConnected };
}

/** A long text, piece by piece. */
export function showWhole(text) {
  let shown = 0;
  const pre = h("pre", { class: "foreign whole", dir: "auto", tabindex: "0" });
  const more = button("", () => add());
  const add = () => {
    const end = Math.min(text.length, shown + PIECE);
    pre.append(visible(text.slice(shown, end)));
    shown = end;
    more.hidden = shown >= text.length;
    more.textContent = `Show more (${bytes(text.length - shown)} are left)`;
  };
  add();
  const heading = h("h2", { id: "question" }, `The whole text, ${bytes(new Blob([text]).size)}`);
  const dialog = open(heading, [pre, h("div", { class: "actions" }, more, button("Close", () => dialog.close()))]);
  dialog.classList.add("wide");
}

function open(heading, content) {
  const dialog = h("dialog", { "aria-labelledby": "question" }, heading, ...content);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
