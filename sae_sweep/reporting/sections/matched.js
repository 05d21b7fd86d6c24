// The best is bold where it is better than the next by more than both their errors (over held-out rows and seeds), or where there are none.
function bestOf(found, key) {
  const known = found.filter(Boolean).sort((a, b) => goodness(b.y, key) - goodness(a.y, key));
  if (known.length < 2) return null;
  return goodness(known[0].y, key) - goodness(known[1].y, key) > Math.hypot(known[0].error, known[1].error) ? known[0] : null;
}

function fill(table) {
  const cell = cells[cellOf(table)], panel = table.closest("section.cell"), key = panel.querySelector(".measure").value;
  if (!key) return;
  const colours = scale("architecture"), units = unitsOf(cell, key, averages(table)), metric = metrics[key];
  const series = bySeries(units, colours).map(({ series, units }) => ({ name: colours.name(series), curve: frontier(units, key) }));
  const rows = levels(units).map(level => {
    const found = series.map(({ curve }) => at(curve, level)), best = bestOf(found, key);
    const entries = found.map(one => h("td", { class: one && one === best ? "best" : null }, one ? number(one.y * metric.scale, metric.digits) : "–"));
    return found.some(Boolean) ? h("tr", {}, h("th", { scope: "row" }, level), entries) : null;
  }).filter(Boolean);
  panel.querySelector(".shown").textContent = metric.name;
  const head = h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "L0"), series.map(({ name }) => h("th", { scope: "col" }, name))));
  table.replaceChildren(...(rows.length ? [head, h("tbody", {}, rows)] : []));
  table.closest(".pair > div").hidden = !rows.length;
}

for (const table of document.querySelectorAll("table.matched")) {
  onChange(() => fill(table));
  for (const choice of table.closest("section.cell").querySelectorAll(".measure, .seeds")) choice.addEventListener("change", () => fill(table));
  fill(table);
}
