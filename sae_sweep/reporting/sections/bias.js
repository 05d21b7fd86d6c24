for (const element of document.querySelectorAll(".gamma")) {
  const cell = cells[cellOf(element)];
  chart(element, () => {
    const { traces, units } = markers(cell, "gamma", { averaged: averages(element) });
    return traces.length ? [traces, { xaxis: l0Axis(units), yaxis: { title: { text: "γ (1 is unbiased)", standoff: 8 } }, shapes: ideal("gamma") }] : null;
  }, `bias-${cellOf(element)}`);
}
