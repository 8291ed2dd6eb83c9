// What every part uses. No text ever becomes markup: elements are made one by one, and words are set as text.
const make = (name, words, parts = []) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(words || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "text") element.textContent = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...parts);
  return element;
};
const SVG = "http://www.w3.org/2000/svg";
const draw = (name, words) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(words)) element.setAttribute(key, value);
  return element;
};
const all = (where, what) => [...where.querySelectorAll(what)];
const one = (where, what) => where.querySelector(what);
const fixed = (value, decimals) => value.toFixed(decimals).replace(/^-(0\.?0*)$/, "$1"); // no zero is below zero
const written = (value, measure) =>
  value === null ? "none" : (measure.signed && value > 0 ? "+" : "") + value.toFixed(measure.decimals);
const articles = all(document, ".report").map((element) => {
  const data = JSON.parse(one(element, ".data").textContent);
  const places = data.heads ? data.heads.places : [];
  const index = new Map(places.map((place, i) => [data.prefix + place[0], i]));
  return { element, data, places, index, name: (i) => data.prefix + places[i][0] };
});
for (const hidden of all(document, ".controls")) hidden.hidden = false;
for (const button of all(document, ".thumbs button")) button.disabled = false;

const theme = one(document, "#theme");
const isDark = () =>
  (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `${theme.textContent} colours`); };
theme.hidden = false;
name();
theme.addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; name(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
