// Looks at a page as an audit of accessibility does, without a network: what is wrong with it, a line each.

const wrong = [];
const name = (element) => `<${element.tagName.toLowerCase()} class="${element.className?.baseVal ?? element.className}"> "${element.textContent.trim().slice(0, 40)}"`;
const isShown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && element.getClientRects().length > 0;

// --- contrast: 4.5, or 3 where the text is large

const colour = (text) => {
  const parts = text.match(/[\d.]+/g).map(Number);
  return { rgb: parts.slice(0, 3), alpha: parts[3] ?? 1 };
};
const over = (top, ground) => top.rgb.map((part, at) => part * top.alpha + ground[at] * (1 - top.alpha));
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.push(colour(getComputedStyle(at).backgroundColor));
  const bottom = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  return layers.reverse().reduce((below, layer) => over(layer, below), bottom);
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const seen = new Set();
let looked = 0;
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (texts.currentNode.data.trim() === "" || seen.has(element)) continue;
  seen.add(element);
  if (!isShown(element) || element.closest(":disabled") || ["SCRIPT", "NOSCRIPT", "OPTION"].includes(element.tagName)) continue;
  looked += 1;
  const style = getComputedStyle(element);
  const below = ground(element);
  const [a, b] = [luminance(over(colour(style.color), below)), luminance(below)];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const size = parseFloat(style.fontSize);
  const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (contrast < (isLarge ? 3 : 4.5)) wrong.push(`contrast ${contrast.toFixed(2)} of ${name(element)}`);
}
if (looked < 5) wrong.push(`there are only ${looked} texts`);

// --- names of what can be used

for (const element of document.querySelectorAll("a[href], button, input, select, textarea, [tabindex='0'], dialog, [role=img]")) {
  if (!isShown(element)) continue;
  const labels = [...(element.labels ?? [])].map((label) => label.textContent).join(" ");
  const by = element.getAttribute("aria-labelledby");
  const given = element.getAttribute("aria-label") ?? (by ? document.getElementById(by)?.textContent : null);
  const isField = ["INPUT", "SELECT", "TEXTAREA"].includes(element.tagName);
  const told = (given ?? "") + labels + (isField ? "" : element.textContent);
  if (told.trim() === "") wrong.push(`no name: ${name(element)}`);
}
for (const image of document.querySelectorAll("img:not([alt])")) wrong.push(`no alt: ${image.src}`);

// --- the structure

const headings = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter(isShown);
const firsts = headings.filter((heading) => heading.tagName === "H1").length;
if (firsts !== 1) wrong.push(`${firsts} headings of level 1`);
headings.reduce((before, heading) => {
  const level = Number(heading.tagName[1]);
  if (level > before + 1) wrong.push(`level ${level} after ${before}: ${name(heading)}`);
  return level;
}, 0);
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) wrong.push(`two elements are called ${id}`);
if (!document.documentElement.lang) wrong.push("the page has no language");
if (!document.title) wrong.push("the page has no title");
if (document.querySelectorAll("main").length !== 1) wrong.push("there isn't one main part");

// --- its width

const { scrollWidth, clientWidth } = document.documentElement;
if (scrollWidth > clientWidth) {
  const wide = [...document.querySelectorAll("body *")].filter((element) => isShown(element) && element.getBoundingClientRect().right > clientWidth + 1);
  wrong.push(`it is ${scrollWidth} wide, of ${clientWidth}: ${wide.slice(0, 3).map(name).join("; ")}`);
}
return wrong;
