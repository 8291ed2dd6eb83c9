// How alike heads are: numbers are unpacked when they are first needed, drawn on a canvas, and told in words.
const MOST_LABELS = 40;
const MISSING = 255;
const unpack = async (text) => {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};
const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

const matrix = (article) => {
  const box = one(article.element, "[data-similarity]");
  const data = article.data.matrices;
  if (!box || !data || typeof DecompressionStream === "undefined") return;
  const [scope, quantity] = [one(box, ".scope"), one(box, ".quantity")];
  const [square, readout, labels] = [one(box, ".square"), one(box, ".readout"), one(box, ".labels")];
  const image = one(square, "img");
  const canvas = make("canvas", { tabindex: "0", role: "application", "aria-roledescription": "matrix of heads" });
  const cross = make("div", { class: "cross", hidden: true });
  const palette = article.data.colours.s.map(channels);
  const unpacked = new Map();
  const shown = { names: [], values: null, at: [0, 0] };
  let [regroup, turn] = [null, 0];

  const bytesOf = (choice, name) => {
    const key = `${choice} ${name}`;
    if (!unpacked.has(key)) unpacked.set(key, unpack(data.choices[choice].packed[name]));
    return unpacked.get(key);
  };
  const look = async (number, name) => {
    const choice = data.choices[number];
    const from = choice.within === undefined ? number : choice.within;
    const whole = data.choices[from].names;
    const bytes = await bytesOf(from, name);
    const place = new Map(whole.map((each, i) => [each, i]));
    const rows = choice.names.map((each) => place.get(each));
    return (i, j) => {
      if (i === j) return 254;
      const [a, b] = rows[i] < rows[j] ? [rows[i], rows[j]] : [rows[j], rows[i]];
      return bytes[a * (whole.length - 1) - (a * (a - 1)) / 2 + b - a - 1];
    };
  };
  const paint = () => {
    const size = shown.names.length;
    canvas.width = canvas.height = size;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(size, size);
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) {
        const entry = shown.values(i, j);
        if (entry === MISSING) continue;
        const at = 4 * (i * size + j);
        pixels.data.set(palette[Math.round((entry / 254) * (palette.length - 1))], at);
        pixels.data[at + 3] = 255;
      }
    }
    context.putImageData(pixels, 0, 0);
  };
  const value = (entry, name) => {
    const alike = entry / 254;
    if (data.signed.includes(name)) return 2 * alike - 1;
    return data.distances.includes(name) ? (1 - alike) ** 2 * data.most : alike;
  };
  const title = (i) => {
    const at = article.index.get(article.data.prefix + shown.names[i]);
    return at === undefined ? shown.names[i] : article.places[at][1];
  };
  const tell = (i, j) => {
    shown.at = [i, j];
    const size = shown.names.length;
    cross.hidden = false;
    Object.assign(cross.style, { left: `${(100 * j) / size}%`, top: `${(100 * i) / size}%`, width: `${100 / size}%`, height: `${100 / size}%` });
    const entry = shown.values(i, j);
    const name = quantity.value;
    const said = entry === MISSING ? "not measured" : i === j ? "the same head" : `${name} ${value(entry, name).toFixed(3)}`;
    readout.textContent = `${title(i)} and ${title(j)}: ${said}.`;
  };
  const choose = async () => {
    const number = Number(scope.value);
    const choice = data.choices[number];
    for (const option of quantity.options) {
      const from = data.choices[choice.within === undefined ? number : choice.within];
      option.disabled = !(option.value in from.packed);
    }
    if (quantity.selectedOptions[0].disabled) quantity.selectedIndex = 0;
    canvas.setAttribute("aria-busy", "true");
    const mine = ++turn;
    const [values, alike] = await Promise.all([look(number, quantity.value), look(number, quantity.options[0].value)]);
    if (mine !== turn) return; // somebody chose again
    Object.assign(shown, { values, names: choice.names });
    paint();
    const size = shown.names.length;
    const tree = one(box, ".tree");
    tree.setAttribute("viewBox", `0 0 ${choice.width} 101`);
    one(tree, "path").setAttribute("d", choice.tree);
    tree.classList.toggle("many", size > 150);
    const few = size <= MOST_LABELS;
    labels.classList.toggle("many", size > 20);
    labels.replaceChildren(...(few ? shown.names.map((_, i) => make("li", { text: brief(i) })) : []));
    regroup(choice, alike);
    cross.hidden = true;
    readout.textContent = "Point at a cell, or use the arrow keys, to read it. Enter shows the head.";
    canvas.setAttribute("aria-label", `${choice.title}: ${quantity.value} of ${size} heads. Arrow keys move, Enter shows the row's head.`);
    for (const button of all(box, ".thumbs button")) button.setAttribute("aria-pressed", String(Number(button.dataset.scope) === number));
    canvas.removeAttribute("aria-busy");
  };
  const brief = (i) => {
    const at = article.index.get(article.data.prefix + shown.names[i]);
    return at === undefined ? shown.names[i] : article.places[at][2];
  };
  regroup = grouping(article, box, square, (i) => brief(i));
  const under = (event) => {
    const frame = canvas.getBoundingClientRect();
    const size = shown.names.length;
    const place = (from, length) => Math.max(0, Math.min(size - 1, Math.floor((from / length) * size)));
    return [place(event.clientY - frame.top, frame.height), place(event.clientX - frame.left, frame.width)];
  };
  const open = () => showHead(article, article.index.get(article.data.prefix + shown.names[shown.at[0]]), canvas);

  canvas.addEventListener("pointermove", (event) => tell(...under(event)));
  canvas.addEventListener("click", (event) => { tell(...under(event)); open(); });
  canvas.addEventListener("focus", () => { readout.setAttribute("aria-live", "polite"); if (cross.hidden) tell(...shown.at); });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const move = moves[event.key];
    if (event.key === "Enter") open();
    if (!move) return;
    event.preventDefault();
    const last = shown.names.length - 1;
    tell(...shown.at.map((at, i) => Math.max(0, Math.min(last, at + move[i]))));
  });
  scope.addEventListener("change", () => { shown.at = [0, 0]; choose(); });
  quantity.addEventListener("change", choose);
  for (const button of all(box, ".thumbs button")) {
    button.addEventListener("click", () => { scope.value = button.dataset.scope; shown.at = [0, 0]; choose(); });
  }
  choose().then(() => { image.hidden = true; square.append(canvas, cross); });
};

articles.forEach(matrix);
