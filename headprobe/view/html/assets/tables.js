// Tables: click a title to sort, write to filter. "rcos > 0.5 layer = 3" compares columns, other words are searched for.
const LEAST_ROWS = 8;
const number = (text) => {
  const found = /^\s*[<>]?([+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[+-]?\d+)?)/i.exec(text);
  return found ? parseFloat(found[1].replaceAll(",", "")) : NaN;
};
const compare = {
  ">": (a, b) => a > b, "<": (a, b) => a < b, "=": (a, b) => a === b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b,
};
const natural = new Intl.Collator("en", { numeric: true }).compare;

const sortable = (table) => {
  const titles = all(table, "thead th");
  const body = one(table, "tbody");
  titles.forEach((title, column) => {
    const button = make("button", { type: "button", text: title.textContent });
    title.replaceChildren(button);
    const words = title.classList.contains("t");
    button.addEventListener("click", () => {
      const down = title.getAttribute("aria-sort") === (words ? "ascending" : null) || (!words && title.getAttribute("aria-sort") !== "descending");
      for (const other of titles) other.removeAttribute("aria-sort");
      title.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => {
        const text = row.cells[column].textContent;
        return { row, text, value: number(text) };
      });
      const empty = ({ text, value }) => (words ? text === "" : Number.isNaN(value));
      rows.sort((a, b) => {
        if (empty(a) || empty(b)) return empty(a) - empty(b);
        const order = words ? natural(a.text, b.text) : a.value - b.value;
        return down ? -order : order;
      });
      body.append(...rows.map(({ row }) => row));
    });
  });
};

// A title may have blanks in it, like "of heads".
const comparisons = (titles) => {
  const names = titles.filter(Boolean).map((title) => title.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  names.sort((a, b) => b.length - a.length);
  return new RegExp(`(${[...names, "[^\\s<>=]+"].join("|")})\\s*(>=|<=|>|<|=)\\s*([+-]?[\\d.]+)`, "gi");
};
const tests = (wanted, titles) => {
  const made = [];
  const rest = wanted.replace(comparisons(titles), (_, title, sign, value) => {
    const column = titles.findIndex((each) => each.toLowerCase() === title.toLowerCase());
    made.push(column < 0 ? () => false : (row) => compare[sign](number(row.cells[column].textContent), parseFloat(value)));
    return " ";
  });
  for (const word of rest.toLowerCase().split(/\s+/).filter(Boolean)) {
    made.push((row) => row.textContent.toLowerCase().includes(word));
  }
  return made;
};

const filterable = (box, table) => {
  const titles = all(table, "thead th").map((title) => title.textContent);
  const rows = [...one(table, "tbody").rows];
  const numeric = all(table, "thead th").find((title, i) => i > 1 && !title.classList.contains("t"));
  const hint = numeric ? `words, or ${numeric.textContent} > 0.5` : "words";
  const input = make("input", { type: "search", placeholder: hint, autocomplete: "off", spellcheck: "false" });
  const count = make("output", { text: `${rows.length} rows` });
  one(box, ".tools").append(make("label", {}, [document.createTextNode("Filter"), input, count]));
  input.addEventListener("input", () => {
    const made = tests(input.value, titles);
    let left = 0;
    for (const row of rows) {
      row.hidden = !made.every((test) => test(row));
      left += !row.hidden;
    }
    count.textContent = made.length ? `${left} of ${rows.length} rows` : `${rows.length} rows`;
  });
};

for (const box of all(document, ".table")) {
  const table = one(box, "table");
  const rows = one(table, "tbody").rows.length;
  if (rows > 1) sortable(table);
  if (rows > LEAST_ROWS) filterable(box, table);
}
