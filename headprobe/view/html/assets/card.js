// A head's card: opened by every link to a head, closed by Escape; its address can be sent to somebody.
const card = one(document, "#card");
let opener = null;

const rail = () => {
  const svg = draw("svg", { viewBox: "0 0 84 12", "aria-hidden": "true" });
  svg.append(draw("rect", { class: "rail", x: 0.5, y: 2.5, width: 83, height: 7, rx: 3 }));
  return svg;
};
const bar = (share, tick) => {
  const svg = rail();
  svg.append(draw("rect", { class: "fill", x: 0.5, y: 2.5, width: Math.max(0, Math.min(1, share)) * 83, height: 7, rx: 3 }));
  if (tick !== null) svg.append(draw("rect", { class: "tick", x: Math.min(82, tick * 83), y: 0, width: 2, height: 12 }));
  return svg;
};
const dot = (share) => {
  const svg = rail();
  svg.append(draw("circle", { class: "fill", cx: 4 + share * 76, cy: 6, r: 4 }));
  return svg;
};
const rank = (values, value) => {
  const known = values.filter((each) => each !== null);
  const below = known.filter((each) => each < value).length;
  return { share: known.length > 1 ? below / (known.length - 1) : 0.5, place: known.filter((each) => each > value).length + 1, of: known.length };
};
const isMass = (measure) => measure.unit === "mass" && !measure.signed && measure.family === "position";

const isType = (measure) => measure.family === "types";
const MOST_TYPES = 5;

const masses = (heads, at) => {
  const shown = heads.measures.filter((measure) => isMass(measure) && measure.values[at] !== null);
  if (!shown.length) return [];
  const list = make("dl", {});
  let ticks = false;
  for (const measure of shown) {
    const tick = measure.uniform.length ? measure.uniform[at] : null;
    ticks = ticks || tick !== null;
    const value = measure.values[at];
    list.append(make("dt", { text: measure.name, title: measure.about }), make("dd", { text: value.toFixed(2) }), make("dd", {}, [bar(value, tick)]));
  }
  const key = ticks ? [make("p", { class: "key", text: "The tick is what uniform attention has." })] : [];
  return [make("h3", { text: "Where it looks" }), list, ...key];
};
// How much of each type it is, beyond chance: the most first.
const types = (heads, at) => {
  const shown = heads.measures.filter((measure) => isType(measure) && measure.values[at] > 0);
  if (!shown.length) return [];
  shown.sort((a, b) => b.values[at] - a.values[at]);
  const list = make("dl", {}, shown.slice(0, MOST_TYPES).flatMap((measure) => [
    make("dt", { text: measure.name.replace(/ \(type\)$/, "").replaceAll("_", " "), title: measure.about }),
    make("dd", { text: measure.values[at].toFixed(2) }), make("dd", {}, [bar(measure.values[at], null)]),
  ]));
  return [make("h3", { text: "What it does, beyond chance" }), list];
};
const numbers = (heads, at) => {
  const shown = heads.measures.filter((measure) => !isMass(measure) && !isType(measure) && measure.values[at] !== null);
  const list = make("dl", {});
  for (const measure of shown) {
    const value = measure.values[at];
    const found = rank(measure.values, value);
    const words = `${measure.about}; number ${found.place} of ${found.of} heads from the top`;
    list.append(make("dt", { text: measure.name, title: words }), make("dd", { text: written(value, measure) }), make("dd", { title: words }, [dot(found.share)]));
  }
  return shown.length ? [make("h3", { text: "Among all heads" }), list, make("p", { class: "key", text: "Left is the lowest of all heads, right the highest." })] : [];
};
const list = (title, entries) =>
  entries.length ? [make("h3", { text: title }), make("ul", {}, entries.map((parts) => make("li", {}, parts)))] : [];

const showHead = (article, at, from) => {
  if (at === undefined) return;
  const { heads } = article.data;
  const [, title, , group] = article.places[at];
  const link = (to) => make("a", { href: `#${article.name(to)}`, text: article.places[to][1] });
  const heading = make("h2", { text: title.charAt(0).toUpperCase() + title.slice(1), tabindex: "-1" });
  const close = make("button", { type: "button", text: "Close" });
  close.addEventListener("click", hideHead);
  const tags = [...(heads.labels[at] || []), ...(group === null ? [] : [`key-value group ${group}`])];
  const alike = (heads.alike[at] || []).map(([to, js]) => [link(to), make("span", { text: `JS ${js.toFixed(3)}` })]);
  const notable = (heads.notable[at] || []).map(([sequence, value]) => [
    make("span", { text: `sequence ${sequence}` }), make("span", { text: value.toFixed(2) }),
  ]);
  card.replaceChildren(
    make("header", {}, [heading, close]),
    ...(tags.length ? [make("p", { class: "tags" }, tags.map((text) => make("span", { text })))] : []),
    ...list("What is known of it", (heads.marks[at] || []).map((text) => [make("span", { text })])),
    ...list("Attends most like", alike),
    ...types(heads, at),
    ...masses(heads, at),
    ...list(`Sharpest on (mean largest weight)`, notable),
    ...numbers(heads, at),
  );
  card.setAttribute("aria-label", title);
  card.hidden = false;
  card.scrollTop = 0;
  document.body.classList.add("with-card");
  mark(article, at);
  const hash = `#${article.name(at)}`;
  if (location.hash !== hash) history.pushState(null, "", hash);
  if (from) opener = from;
  heading.focus({ preventScroll: true });
};
const mark = (article, at) => {
  for (const on of all(document, ".on")) on.classList.remove("on");
  if (article === null) return;
  const name = `#${article.name(at)}`;
  for (const cell of all(article.element, ".map td a")) if (cell.hash === name) cell.parentElement.classList.add("on");
  const row = document.getElementById(name.slice(1));
  if (row) row.classList.add("on");
};
const hideHead = () => {
  if (card.hidden) return;
  card.hidden = true;
  document.body.classList.remove("with-card");
  mark(null);
  if (named(location.hash)) history.pushState(null, "", location.pathname + location.search);
  if (opener && opener.isConnected) opener.focus({ preventScroll: true });
  opener = null;
};
const named = (hash) => {
  const name = hash.slice(1);
  const article = articles.find((each) => each.index.has(name));
  return article ? [article, article.index.get(name)] : null;
};

document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  const found = link && named(link.hash);
  if (!found || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  showHead(...found, card.contains(link) ? null : link);
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideHead(); });
const follow = () => {
  const found = named(location.hash);
  if (!found) {
    if (location.hash) opener = null; // a link to a part of the page keeps the focus
    return hideHead();
  }
  showHead(...found, null);
  const cell = one(found[0].element, ".map td.on a");
  if (cell) cell.scrollIntoView({ block: "center" });
};
addEventListener("popstate", follow);
addEventListener("load", follow);
