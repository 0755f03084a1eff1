"use strict";
/* Two conveniences; the page is whole without them: sort a table by a column, copy a command. */

const SCALE = { ns: 1e-9, "µs": 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };

/** The number a cell begins with, in base units; NaN where it begins with none. */
function valueOf(text) {
  const found = /^([−-]?[\d,]*\.?\d+(?:e[-+]?\d+)?)\s*([a-zµA-Z]*)/.exec(text.trim());
  if (!found) return NaN;
  return Number(found[1].replaceAll(",", "").replace("−", "-")) * (SCALE[found[2]] ?? 1);
}

function compare(a, b) {
  const [x, y] = [valueOf(a), valueOf(b)];
  if (isNaN(x) && isNaN(y)) return a.localeCompare(b, "en", { numeric: true });
  return isNaN(x) ? 1 : isNaN(y) ? -1 : x - y;
}

function sortBy(table, column, heading) {
  const up = heading.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((a, b) => compare(a.cells[column].textContent, b.cells[column].textContent));
  body.append(...(up ? rows : rows.reverse()));
}

for (const table of document.querySelectorAll("table")) {
  if (table.tBodies[0].rows.length < 3) continue;
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(table, column, heading));
    heading.append(button);
  });
}

for (const box of document.querySelectorAll(".command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy the command");
  button.addEventListener("click", async () => {
    const text = box.querySelector("code");
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  box.append(button);
}
