// Groups of heads: the tree cut into as many as the slider says, and how clear each number of groups is.
const MOST_LISTED = 60;
const MOST_MEMBERS = 24;

const grouping = (article, box, square, title) => {
  const part = one(box, ".groups");
  const [slider, told, list] = [one(part, "input"), one(part, ".told"), one(part, "ol")];
  const [chart, tree, best] = [one(part, "svg"), one(box, ".tree"), one(part, "button")];
  const frames = make("div", { class: "frames", "aria-hidden": "true" });
  const line = draw("line", { class: "cut", x1: 0 });
  const { clear } = article.data.matrices;
  square.append(frames);
  tree.append(line);
  let shown = null; // { cut, names, width, alike }

  const parts = (count) => {
    const edges = [0, ...shown.cut.edges.slice(0, count - 1).sort((a, b) => a - b), shown.names.length];
    return edges.slice(1).map((end, i) => ({ start: edges[i], end, size: end - edges[i] }));
  };
  // The head with the least summed distance to the others stands for the group; of equal ones the model's first.
  const rank = (i) => article.index.get(article.data.prefix + shown.names[i]);
  const stands = ({ start, end }) => {
    let [least, found] = [Infinity, start];
    for (let i = start; i < end; i++) {
      let sum = 0;
      for (let j = start; j < end; j++) sum += 254 - shown.alike(i, j);
      if (sum < least || (sum === least && rank(i) < rank(found))) [least, found] = [sum, i];
    }
    return found;
  };
  const link = (i) => make("a", { href: `#${article.data.prefix}${shown.names[i]}`, text: title(i) });
  const entry = (group) => {
    const first = best.disabled ? shown.cut.stand.find((i) => i >= group.start && i < group.end) : stands(group);
    const others = [...Array(group.size).keys()].map((i) => group.start + i).filter((i) => i !== first);
    const more = others.length > MOST_MEMBERS ? [document.createTextNode(` and ${others.length - MOST_MEMBERS} more`)] : [];
    const links = others.slice(0, MOST_MEMBERS).flatMap((i) => [document.createTextNode(" "), link(i)]);
    return make("li", {}, [make("strong", {}, [link(first)]), document.createTextNode(" stands for"), ...links, ...more]);
  };
  const plot = (count) => {
    const { silhouettes } = shown.cut;
    const [low, high] = [Math.min(0, ...silhouettes), Math.max(clear, ...silhouettes)];
    const x = (groups) => (silhouettes.length > 1 ? (100 * (groups - 2)) / (silhouettes.length - 1) : 50);
    const y = (value) => 58 - (56 * (value - low)) / (high - low);
    const path = silhouettes.map((value, i) => `${i ? "L" : "M"}${x(i + 2)} ${y(value)}`).join("");
    const rule = (kind, where) => draw("line", { class: kind, ...where });
    chart.replaceChildren(
      rule("limit", { x1: 0, x2: 100, y1: y(clear), y2: y(clear) }),
      rule("here", { x1: x(count), x2: x(count), y1: 0, y2: 60 }),
      draw("path", { d: path }),
    );
  };
  const show = (count) => {
    const { cut, names } = shown;
    const every = parts(count);
    const several = every.filter(({ size }) => size > 1).sort((a, b) => b.size - a.size);
    const alone = every.length - several.length;
    const mean = cut.silhouettes[count - 2];
    const words = mean < clear ? "there is little to it" : mean < 2 * clear ? "there is something to it" : "it is clear";
    slider.value = String(count);
    slider.setAttribute("aria-valuetext", `${count} groups, mean silhouette ${mean.toFixed(2)}`);
    best.disabled = count === cut.best;
    const single = alone ? `, ${alone} of them a single head` : "";
    told.textContent = `${count} groups of ${names.length} heads${single}. Those in a group are on average within a JS of ${(cut.heights[count - 1] ** 2).toFixed(3)}. Mean silhouette ${mean.toFixed(2)}: ${words}. The clearest number is ${cut.best}, with ${cut.silhouettes[cut.best - 2].toFixed(2)}.`;
    const left = several.length > MOST_LISTED ? [make("li", { text: `and ${several.length - MOST_LISTED} smaller groups` })] : [];
    list.replaceChildren(...several.slice(0, MOST_LISTED).map(entry), ...left);
    frames.replaceChildren(...several.map(({ start, size }) => {
      const frame = make("i", {});
      const [at, side] = [start, size].map((each) => `${(100 * each) / names.length}%`);
      Object.assign(frame.style, { left: at, top: at, width: side, height: side });
      return frame;
    }));
    const top = cut.heights[0] || 1;
    const height = 100.5 - (50 * (cut.heights[count - 2] + cut.heights[count - 1])) / top;
    for (const [key, value] of Object.entries({ x2: shown.width, y1: height, y2: height })) line.setAttribute(key, value);
    plot(count);
  };
  slider.addEventListener("input", () => show(Number(slider.value)));
  best.addEventListener("click", () => { show(shown.cut.best); slider.focus(); });
  chart.addEventListener("click", (event) => {
    const frame = chart.getBoundingClientRect();
    show(2 + Math.round(((event.clientX - frame.left) / frame.width) * (shown.cut.silhouettes.length - 1)));
  });
  // `alike(i, j)` is how much alike two heads of the choice are, from 0 to 254.
  return (choice, alike) => {
    part.hidden = frames.hidden = !choice.groups;
    line.style.display = choice.groups ? "" : "none";
    if (!choice.groups) return;
    shown = { cut: choice.groups, names: choice.names, width: choice.width, alike };
    slider.max = String(choice.groups.silhouettes.length + 1);
    one(part, ".most").textContent = `${slider.max} groups`;
    show(choice.groups.best);
  };
};
