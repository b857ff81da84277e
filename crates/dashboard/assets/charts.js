// Small charts of the last hour, or of the time that there is: one drawing with a line for each series, and the figure that one
// points at.

import { h, put, svg } from "./dom.js";
import { clock, duration } from "./format.js";

const [WIDTH, HEIGHT] = [240, 48];

// Samples that a chart has room for where there are fewer.
const SAMPLES_MIN = 60;

/** The smallest of 1, 2, 5, 10, 20 ... that isn't below. */
function ceiling(number) {
  if (!(number > 0)) return 1;
  const scale = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 5, 10].map((step) => step * scale).find((step) => step >= number * 0.999) ?? 10 * scale;
}

/** A line through points; `null` is a gap. `samples` are those of the whole width. */
function path(values, samples, top) {
  const first = samples - values.length;
  let [text, pen] = ["", "M"];
  values.forEach((value, at) => {
    if (value == null) {
      pen = "M";
      return;
    }
    const x = ((first + at) / Math.max(1, samples - 1)) * WIDTH;
    const y = HEIGHT - 1 - (Math.min(value, top) / top) * (HEIGHT - 3);
    text += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  });
  return text;
}

/** The area under a line, to its end. */
function under(values, samples, top) {
  const begun = values.lastIndexOf(null) + 1;
  const line = path(values.slice(begun), samples, top);
  const first = ((samples - (values.length - begun)) / Math.max(1, samples - 1)) * WIDTH;
  return line === "" ? "" : `${line}L${WIDTH} ${HEIGHT}L${first.toFixed(1)} ${HEIGHT}Z`;
}

/** At most one point for a pixel: the highest of those that fall together, so that no peak is lost. */
function thinned(values, samples) {
  const step = Math.ceil(samples / WIDTH);
  if (step <= 1) return [values, samples];
  const groups = Math.ceil(samples / step);
  const thin = [];
  for (let end = values.length; end > 0; end -= step) {
    const group = values.slice(Math.max(0, end - step), end).filter((value) => value != null);
    thin.unshift(group.length > 0 ? Math.max(...group) : null);
  }
  return [thin, groups];
}

/**
 * A chart. A series is `{ name, kind }`. `update(history, lists)` takes a list of values for each, which end now.
 */
export function chart(label, format, series) {
  const now = series.map(({ kind }) => h("span", { class: series.length > 1 ? `key ${kind}` : "" }));
  const note = h("span", { class: "chart-note" });
  const span = h("span", {});
  const drawn = series.map(({ kind }) => svg("path", { class: `series ${kind}` }));
  const area = svg("path", { class: `area ${series[0].kind}` });
  const cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
    area,
    drawn,
    cursor,
  );
  const legend = series.length > 1 && h("span", { class: "legend" }, series.map(({ name, kind }) => h("span", { class: `key ${kind}` }, name)));
  const node = h(
    "figure",
    { class: "chart" },
    h("figcaption", {}, h("span", { class: "chart-label" }, label), h("span", { class: "chart-now" }, now)),
    drawing,
    h("p", { class: "chart-foot" }, legend || span, note),
  );
  let data = { times: [], samples: 1, lists: series.map(() => []) };
  let pointed = null;
  const values = (back) => data.lists.map((list) => list[list.length - 1 - back]);
  const told = (back) => values(back).map((value, at) => `${series.length > 1 ? `${series[at].name} ` : ""}${format(value)}`).join(", ");
  const putNow = (back) => values(back).forEach((value, at) => put(now[at], format(value)));
  const tell = () => {
    if (pointed == null) {
      putNow(0);
      const top = Math.max(...data.lists.flat().filter((value) => value != null), 0);
      put(note, data.times.length > 0 ? `max ${format(top)}` : "");
    } else {
      putNow(pointed);
      put(note, clock(data.times[data.times.length - 1 - pointed]));
    }
  };
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const back = Math.round((1 - (event.clientX - box.left) / box.width) * (data.samples - 1));
    pointed = back >= 0 && back < data.times.length ? back : null;
    const x = (1 - (pointed ?? 0) / Math.max(1, data.samples - 1)) * WIDTH;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.setAttribute("visibility", pointed == null ? "hidden" : "visible");
    tell();
  });
  drawing.addEventListener("pointerleave", () => {
    pointed = null;
    cursor.setAttribute("visibility", "hidden");
    tell();
  });
  const update = ({ times, samples: most, every_s }, lists) => {
    const samples = Math.min(most, Math.max(SAMPLES_MIN, times.length));
    data = { times, samples, lists };
    const shown = `last ${duration(samples * every_s)}`;
    put(span, shown);
    const top = ceiling(Math.max(...lists.flat().filter((value) => value != null), 0));
    lists.forEach((list, at) => drawn[at].setAttribute("d", path(...thinned(list, samples), top)));
    area.setAttribute("d", under(...thinned(lists[0], samples), top));
    drawing.setAttribute("aria-label", `${label}, ${shown}: now ${told(0)}`);
    tell();
  };
  return { node, update };
}
