const table = document.querySelector("section.table table.members");

function sortBy(column) {
  const head = table.tHead.rows[0].cells[column];
  const rising = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.value === undefined ? null : Number(row.cells[column].dataset.value);
  const text = row => row.cells[column].textContent;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [left, right] = [key(a), key(b)];
    if (left !== null && right !== null) return rising ? left - right : right - left;
    if (left === null && right === null) return (rising ? 1 : -1) * text(a).localeCompare(text(b), "en", { numeric: true });
    return left === null ? 1 : -1; // undefined values stay last, whichever way
  });
  table.tBodies[0].append(...rows);
}

const rows = () => [...table.tBodies[0].rows];
const left = new Set(); // columns that are left out

function chooseColumns() {
  const heads = [...table.tHead.rows[0].cells], style = document.head.appendChild(h("style"));
  const same = index => rows().length > 1 && new Set(rows().map(row => row.cells[index].textContent)).size === 1;
  const refresh = () => {
    style.textContent = [...left].map(index => `table.members tr > :nth-child(${index + 1})`).join(",") + "{display:none}";
    if (!left.size) style.textContent = "";
  };
  heads.forEach((head, index) => { if (index && same(index)) left.add(index); });
  const boxes = heads.map((head, index) => index === 0 ? null : h("div", {}, h("label", {}, h("input", {
    type: "checkbox", checked: !left.has(index), "data-column": head.dataset.key,
    onchange: ({ target }) => { target.checked ? left.delete(index) : left.add(index); refresh(); },
  }), " ", head.textContent)));
  refresh();
  return h("details", { class: "columns" }, h("summary", {}, "Columns"), h("div", { class: "values" }, h("p", { class: "quiet" }, "Alike for all: left out at first."), boxes));
}

// Shown rows and columns: as numbers in full for programs, as they are written here for papers.
function exported(format) {
  const heads = [...table.tHead.rows[0].cells], kept = heads.map((_, index) => index).filter(index => !left.has(index));
  const shown = rows().filter(row => !row.hidden);
  if (format === "latex") {
    const numeric = kept.map(index => heads[index].classList.contains("number"));
    return latex(kept.map(index => heads[index].textContent), shown.map(row => kept.map(index => row.cells[index].textContent)), numeric);
  }
  const fields = kept.flatMap(index => {
    const key = heads[index].dataset.key, plain = (point, row) => point[key] ?? (key in metrics ? null : row.cells[index].textContent);
    const error = metrics[key]?.error;
    return [[key, plain], ...(error ? [[error, point => point[error]]] : [])];
  });
  return csv([fields.map(([key]) => key), ...shown.map(row => fields.map(([, value]) => value(pointOf.get(row.dataset.member), row)))]);
}

if (table) {
  for (const button of table.tHead.querySelectorAll("button"))
    button.addEventListener("click", () => sortBy(button.parentElement.cellIndex));
  table.tBodies[0].addEventListener("click", event => {
    const button = event.target.closest("th button");
    if (button) openMember(button.closest("tr").dataset.member);
  });
  const save = (format, name, type) => h("button", { type: "button", "data-save": format, onclick: () => saveText(exported(format), name, type) }, format === "csv" ? "CSV" : "LaTeX");
  table.closest("section").querySelector(".controls").append(chooseColumns(), save("csv", "members.csv", "text/csv"), save("latex", "members.tex", "text/x-tex"));
  onChange(() => { for (const row of rows()) row.hidden = !isShown(pointOf.get(row.dataset.member)); });
}
