for (const element of document.querySelectorAll(".gamma")) {
  const cell = cells[cellOf(element)];
  draws.push(() => draw(element, markers(cell, "gamma"), {
    xaxis: l0Axis(cell.points), yaxis: { title: { text: "γ (1 is unbiased)", standoff: 8 } }, showlegend: false, shapes: ideal("gamma"),
  }));
}
