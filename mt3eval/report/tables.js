// Tables whose columns sort: a button in each heading, missing values always last.

const directions = { ascending: 1, descending: -1 };

/** Values before words in numeric columns; missing ones are handled by the caller. */
function compareValues(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), "en", { numeric: true });
}

const isMissing = (value) => value === null || value === undefined || value === "";

/**
 * A table. `columns`: `{title, key, kind, hint}` with kind "text", "number", "count" or "percent". `rows`: an object with a
 * value for each key; a value may be `{value, text, bar, heat, colour, hollow, own, action, hint}`, where `bar` and
 * `heat` are shares from 0 to 1 and `action` makes it a button. The first column heads the rows.
 */
function sortableTable(caption, columns, rows) {
  const table = make("table", {}, make("caption", { text: caption }));
  const head = make("tr");
  const body = make("tbody");
  const cellOf = (row, column) => {
    const cell = row[column.key];
    return cell !== null && typeof cell === "object" ? cell : { value: cell };
  };
  const lines = rows.map((row) => ({ row, line: tableLine(columns, (column) => cellOf(row, column), row.current) }));

  columns.forEach((column) => {
    const button = make("button", { type: "button", text: column.title, title: column.hint });
    const heading = make("th", { scope: "col", class: column.kind === "text" ? "" : "number" }, button);
    button.addEventListener("click", () => {
      const first = column.kind === "text" ? "ascending" : "descending";
      const now = heading.getAttribute("aria-sort");
      const next = now === null ? first : now === "ascending" ? "descending" : "ascending";
      for (const each of head.children) each.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", next);
      lines.sort((one, other) => {
        const values = [cellOf(one.row, column).value, cellOf(other.row, column).value];
        if (isMissing(values[0]) || isMissing(values[1])) return isMissing(values[0]) - isMissing(values[1]);
        return directions[next] * compareValues(...values);
      });
      body.append(...lines.map((each) => each.line));
    });
    head.append(heading);
  });
  body.append(...lines.map((each) => each.line));
  table.append(make("thead", {}, head), body);
  return table;
}

function tableLine(columns, cellOf, isCurrent) {
  const line = make("tr", { class: isCurrent ? "current" : null });
  columns.forEach((column, number) => {
    const cell = cellOf(column);
    const made = number === 0 ? make("th", { scope: "row" }) : make("td");
    if (cell.colour) {
      const swatch = make("span", { class: cell.hollow ? "swatch hollow" : "swatch", "aria-hidden": "true" });
      swatch.style.setProperty("--colour", cell.colour);
      made.append(swatch);
    }
    const text = cell.text ?? cellText(cell.value, column.kind);
    if (cell.action) {
      const button = make("button", { type: "button", class: "link", text });
      button.addEventListener("click", cell.action);
      made.append(button);
    } else made.append(text);
    if (column.kind !== "text") made.classList.add("number");
    if (isMissing(cell.value)) made.classList.add("missing");
    if (cell.own) made.classList.add("own");
    if (cell.hint) made.title = cell.hint;
    if (typeof cell.bar === "number") made.style.setProperty("--bar", `${(100 * cell.bar).toFixed(1)}%`);
    if (typeof cell.heat === "number") {
      made.classList.add("heat");
      made.style.setProperty("--heat", `${(65 * cell.heat).toFixed(1)}%`);
    }
    line.append(made);
  });
  return line;
}

function cellText(value, kind) {
  if (isMissing(value)) return "–";
  if (kind === "percent") return percentText(value);
  if (kind === "count") return value.toLocaleString("en");
  return kind === "number" ? numberText(value) : String(value);
}

/** Replaces the content of the element with a table, or with a sentence if there are no rows. */
function showTable(id, caption, columns, rows, whenEmpty) {
  const place = element(id);
  place.replaceChildren(rows.length ? sortableTable(caption, columns, rows) : make("p", { class: "note", text: whenEmpty }));
  // Only scrollable elements need to be reachable by keyboard.
  place.tabIndex = rows.length ? 0 : -1;
  place.setAttribute("role", "region");
  place.setAttribute("aria-label", caption);
}
