function sortBy(table, column) {
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

for (const table of document.querySelectorAll("table.members")) {
  for (const button of table.tHead.querySelectorAll("button"))
    button.addEventListener("click", () => sortBy(table, button.parentElement.cellIndex));
}
