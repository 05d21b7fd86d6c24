function rings(cell, y) {
  const best = new Set(cell.frontiers.overall);
  const points = cell.points.filter(point => best.has(point.member) && point.l0 > 0 && point[y] !== null);
  return {
    type: "scatter", mode: "markers", name: "on the frontier of the cell", x: points.map(p => p.l0), y: points.map(p => p[y]),
    hoverinfo: "skip", cliponaxis: false, marker: { symbol: "circle-open", size: 18, color: variable("--quiet"), line: { width: 1.4 } },
  };
}

function drawFrontier(element) {
  const cell = cells[cellOf(element)], key = element.closest("section.cell").querySelector(".measure").value;
  if (!key) return;
  const horizontal = { orientation: "h", x: 0, xanchor: "left", y: 1.01, yanchor: "bottom", itemsizing: "constant" };
  draw(element, [rings(cell, key), ...markers(cell, key)], {
    xaxis: l0Axis(cell.points), yaxis: { title: { text: metrics[key].axis, standoff: 8 } }, legend: horizontal, shapes: ideal(key),
  });
}

for (const element of document.querySelectorAll(".frontier")) {
  draws.push(() => drawFrontier(element));
  element.closest("section.cell").querySelector(".measure").addEventListener("change", () => drawFrontier(element));
}
