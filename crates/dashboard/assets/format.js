// Numbers, times and texts as a person reads them.

// Characters of a foreign text that are shown at once.
export const SHOWN_MAX = 2_000;

// Colours and weights of a terminal: nothing is lost without them.
const COLOURS = /\u001b\[[0-9;:]*m/g;

// Characters that can't be seen, or that have a say in how others are shown. A tab and a line's end aren't among them.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]/gu;

/** A foreign text with codes such as \u{202e} in place of what can't be seen. */
export function visible(text) {
  return String(text)
    .replace(/\r\n/g, "\n")
    .replace(COLOURS, "")
    .replace(UNSEEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** The same on one line. */
export function visibleLine(text) {
  return visible(text).replace(/\n/g, "\\n").replace(/\t/g, " ");
}

const whole = new Intl.NumberFormat("en");

export function count(number) {
  return number == null ? "–" : whole.format(Math.round(number));
}

/** Three digits: 0.45, 12.3, 1,234. */
export function figure(number) {
  if (number == null) return "–";
  const size = Math.abs(number);
  if (size === 0) return "0";
  if (size >= 100) return whole.format(Math.round(number));
  return size >= 10 ? number.toFixed(1) : number.toFixed(2);
}

export function bytes(number) {
  if (number == null) return "–";
  let [size, unit] = [number, 0];
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  while (size >= 1024 && unit < units.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/** How long a call took. */
export function seconds(number) {
  if (number == null) return "–";
  if (number < 0.001) return `${(number * 1e6).toFixed(0)} µs`;
  if (number < 1) return `${figure(number * 1e3)} ms`;
  return number < 120 ? `${figure(number)} s` : duration(number);
}

/** How long something has lasted: 3d 4h, 5m 10s. */
export function duration(number) {
  if (number == null) return "–";
  const total = Math.max(0, Math.floor(number));
  const parts = [
    [Math.floor(total / 86400), "d"],
    [Math.floor(total / 3600) % 24, "h"],
    [Math.floor(total / 60) % 60, "m"],
    [total % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value > 0);
  if (first < 0) return "0s";
  const shown = parts.slice(first, first + 2).filter(([value], at) => at === 0 || value > 0);
  return shown.map(([value, unit]) => value + unit).join(" ");
}

const two = (number) => String(number).padStart(2, "0");

/** 14:03:27, of this person's clock. */
export function clock(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return visibleLine(time);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** 2026-11-21 14:03:27, of this person's clock. */
export function moment(time) {
  if (time == null) return "–";
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return visibleLine(time);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(time)}`;
}

/** 5m ago, in 2h. */
export function relative(time) {
  if (time == null) return "–";
  const away = (new Date(time).getTime() - Date.now()) / 1000;
  if (Number.isNaN(away)) return visibleLine(time);
  if (Math.abs(away) < 1) return "now";
  return away < 0 ? `${duration(-away)} ago` : `in ${duration(away)}`;
}

/** 1 job, 2 jobs. */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
