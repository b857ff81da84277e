// Elements, made of tags, properties and texts. Texts become text nodes, and nothing ever becomes HTML.

import { SHOWN_MAX, bytes, moment, relative, visible, visibleLine } from "./format.js";
import { showWhole } from "./dialogs.js";

const SVG = "http://www.w3.org/2000/svg";

/** An element. `on...` are listeners, `data` is the dataset, a boolean sets or leaves an attribute, all else is one. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for a part of a drawing. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

/** Changes an element's text, where it isn't that already. */
export function put(element, text) {
  const next = String(text);
  if (element.textContent !== next) element.textContent = next;
}

/** Shows other children in an element. */
export function show(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child != null && child !== false));
}

/** A foreign text on one line, apart from the direction of what is around it. */
export function line(text, max = SHOWN_MAX) {
  return foreign("bdi", visibleLine, String(text ?? ""), max);
}

/** A foreign text of several lines. */
export function block(text, max = 10 * SHOWN_MAX) {
  // A person who scrolls by keys has to be able to get there.
  const pre = h("pre", { class: "foreign", dir: "auto", tabindex: "0" });
  pre.append(foreign("bdi", visible, String(text ?? ""), max));
  return pre;
}

function foreign(tag, shown, text, max) {
  const element = h(tag, { class: "foreign" });
  if (text.length <= max) {
    element.append(shown(text));
    return element;
  }
  // Not through the middle of a character.
  const end = /[\ud800-\udbff]/.test(text[max - 1]) ? max - 1 : max;
  element.append(shown(text.slice(0, end)), "… ");
  const more = h("button", { type: "button", class: "small", onclick: () => showWhole(text) });
  more.append(`Show all ${bytes(new Blob([text]).size)}`);
  element.append(more);
  return element;
}

/** A time as how long ago it is, and whole where one points at it. */
export function ago(time) {
  return time == null ? "–" : h("time", { datetime: time, title: moment(time) }, relative(time));
}

/** A word in a colour: `good`, `warn`, `bad` or nothing. */
export function pill(text, kind = "") {
  return h("span", { class: `pill ${kind}` }, visibleLine(text));
}

export function button(label, onclick, properties = {}) {
  return h("button", { type: "button", onclick, ...properties }, label);
}

/** Names and values. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value != null && value !== "" && value !== false);
  return h("dl", { class: "facts" }, known.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/**
 * Keeps children in step with items: a child stays as long as its item does, so that focus and selection stay.
 * `make(item)` answers with `{ node, update(item) }`.
 */
export function keyed(parent, make) {
  const known = new Map();
  return (items, key) => {
    const keys = new Set(items.map(key));
    for (const [name, child] of known) {
      if (!keys.has(name)) {
        child.node.remove();
        known.delete(name);
      }
    }
    let before = null;
    for (const item of items) {
      const name = key(item);
      if (!known.has(name)) known.set(name, make(item));
      const child = known.get(name);
      child.update?.(item);
      const place = before ? before.nextSibling : parent.firstChild;
      if (place !== child.node) parent.insertBefore(child.node, place);
      before = child.node;
    }
  };
}

/**
 * A table, whose rows are cards where the window is narrow. A column is `[title, class]`. `rows(items, key, cells)` shows items;
 * cells are made anew when `cells(item)` says something else than before.
 */
export function table(caption, columns, empty) {
  const head = columns.map(([title, kind]) => h("th", { scope: "col", role: "columnheader", class: kind }, title));
  const body = h("tbody", { role: "rowgroup" });
  const none = h("p", { class: "empty" }, empty);
  const grid = h(
    "table",
    { role: "table" },
    h("caption", { class: "unseen" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
    body,
  );
  const row = () => {
    const cells = columns.map(([title, kind]) => h("td", { role: "cell", class: kind, data: { title } }));
    return { node: h("tr", { role: "row" }, cells), cells };
  };
  const step = keyed(body, () => {
    const { node, cells } = row();
    const signs = [];
    return {
      node,
      update: ({ values }) =>
        values.forEach(([sign, make], at) => {
          if (signs[at] === sign) return;
          signs[at] = sign;
          show(cells[at], make ? make() : visibleLine(sign));
        }),
    };
  });
  const rows = (items, key, values) => {
    none.hidden = items.length > 0;
    grid.hidden = items.length === 0;
    step(items.map((item) => ({ key: key(item), values: values(item) })), (item) => item.key);
  };
  return { node: h("div", { class: "table" }, grid, none), rows };
}

/** A field with its label. */
export function field(label, control) {
  return h("label", { class: "field" }, h("span", {}, label), control);
}

/** A choice of `[value, text]`. */
export function select(options, chosen, onchange) {
  const control = h("select", { onchange: () => onchange(control.value) });
  control.append(...options.map(([value, text]) => h("option", { value, selected: value === chosen }, visibleLine(text))));
  return control;
}
