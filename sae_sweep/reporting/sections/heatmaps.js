// One heat map: dictionary sizes upwards, the knob's values to the right, both evenly spaced whatever their ratios.
function map(element, grid) {
  const key = element.dataset.map, { heading, most } = metrics[key], values = grid.maps[key], digits = key === "l0" ? 1 : 3;
  const shade = key === "l0" ? values.map(row => row.map(value => value > 0 ? Math.log10(value) : null)) : values;
  const note = grid.members.map(row => row.map(count => count > 1 ? `<br>mean of ${count} members` : ""));
  return [[{
    type: "heatmap", x: grid.values.map(short), y: grid.widths.map(short), z: shade, text: values.map(row => row.map(value => number(value, digits))),
    customdata: note, texttemplate: "%{text}", hovertemplate: `${heading} %{text}<br>%{y} latents · ${grid.knob}=%{x}%{customdata}<extra></extra>`,
    zmin: key === "l0" ? undefined : 0, zmax: most ?? undefined, colorscale: "Viridis", showscale: false, xgap: 1, ygap: 1,
  }], { xaxis: { type: "category", title: { text: grid.knob } }, yaxis: { type: "category", title: { text: "latents", standoff: 8 } } }];
}

for (const element of document.querySelectorAll(".map"))
  chart(element, () => map(element, data[cellOf(element)][Number(element.dataset.grid)]), `${element.dataset.map}-${element.dataset.grid}`);
