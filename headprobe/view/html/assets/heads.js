// Layers × heads: another measure on the same cells; arrows move from cell to cell; what is under the pointer in words.
const STEPS = 33;
const colour = (value, measure) => {
  if (value === null) return "none";
  const share = measure.high > measure.low ? (value - measure.low) / (measure.high - measure.low) : 0;
  return (measure.signed ? "d" : "s") + Math.round((STEPS - 1) * Math.min(1, Math.max(0, share)));
};
const short = (value, measure) => {
  if (value === null) return "none";
  const text = fixed(value, Math.min(measure.decimals, 2));
  return text.length > 5 && measure.decimals ? fixed(value, 1) : text;
};

const heads = (article) => {
  const box = one(article.element, "[data-heads]");
  if (!box || !article.data.heads) return;
  const { measures } = article.data.heads;
  const cells = all(box, ".map td a").map((link) => ({ link, at: article.index.get(link.hash.slice(1)) }));
  const select = one(box, ".measure");
  const readout = one(box, ".readout");
  const buttons = all(box, ".thumbs button");
  let chosen = 0;
  readout.hidden = false;

  const tell = (at) => {
    const measure = measures[chosen];
    const uniform = measure.uniform.length && measure.uniform[at] !== null ? `; uniform attention has ${written(measure.uniform[at], measure)}` : "";
    const unit = measure.unit && measure.unit !== "mass" ? ` ${measure.unit}` : "";
    readout.textContent = `${article.places[at][1]}: ${measure.name} ${written(measure.values[at], measure)}${unit}${uniform}.`;
  };
  const choose = (number) => {
    chosen = number;
    const measure = measures[number];
    select.value = String(number);
    one(box, ".what strong").textContent = measure.name;
    one(box, ".what span").textContent = measure.about;
    for (const { link, at } of cells) {
      const group = link.parentElement.classList.contains("g") ? " g" : "";
      const on = link.parentElement.classList.contains("on") ? " on" : "";
      link.parentElement.className = colour(measure.values[at], measure) + group + on;
      link.firstElementChild.textContent = short(measure.values[at], measure);
    }
    const scale = one(box, ".legend img");
    scale.src = measure.signed ? scale.dataset.d : scale.dataset.s;
    one(box, ".legend .low").textContent = measure.low.toFixed(measure.decimals);
    one(box, ".legend .high").textContent = measure.high.toFixed(measure.decimals);
    one(box, ".legend .more").textContent = measure.more ? `more means: ${measure.more}` : "";
    for (const button of buttons) button.setAttribute("aria-pressed", String(Number(button.dataset.measure) === number));
  };

  select.addEventListener("change", () => choose(Number(select.value)));
  for (const button of buttons) button.addEventListener("click", () => choose(Number(button.dataset.measure)));
  cells.forEach(({ link, at }, i) => {
    link.tabIndex = i ? -1 : 0;
    link.addEventListener("pointerenter", () => tell(at));
    link.addEventListener("focus", () => {
      for (const other of cells) other.link.tabIndex = other.link === link ? 0 : -1;
      tell(at);
    });
  });
  for (const map of all(box, ".map")) arrows(map);
  choose(0);
};

const arrows = (map) => {
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -999], End: [0, 999] };
  map.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    const cell = event.target.closest("td");
    if (!move || !cell || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const row = map.rows[cell.parentElement.rowIndex + move[0]];
    if (!row || !row.rowIndex) return;
    const last = row.cells.length - 1;
    const next = one(row.cells[Math.max(1, Math.min(last, cell.cellIndex + move[1]))], "a");
    if (next) next.focus();
  });
};

articles.forEach(heads);
