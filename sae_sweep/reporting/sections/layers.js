const element = document.querySelector(".chart.overview");
if (element) {
  const panel = element.closest("section"), [of, level] = [panel.querySelector(".of"), panel.querySelector(".level")];
  const keys = [...new Set(choices.flat())];
  of.append(...keys.map(key => h("option", { value: key }, metrics[key].name)));
  const all = levels(points.filter(point => point.l0 > 0));
  const reach = value => cells.filter(cell => cell.points.some(p => p.l0 <= value) && cell.points.some(p => p.l0 >= value)).length;
  const most = Math.max(...all.map(reach));
  const middle = all.filter(value => reach(value) === most);
  level.append(...all.map(value => h("option", { value, selected: value === middle[Math.floor(middle.length / 2)] }, value)));

  // Cells that differ in their layer alone are one line.
  const besideLayer = cell => JSON.stringify({ ...cell.key, site: Object.values(cell.key.site).map(hook => hook.replace(/\d+/, "")) });
  const paint = () => {
    const key = of.value, colours = scale("architecture"), lines = new Map();
    for (const cell of cells) {
      for (const { series, units } of bySeries(unitsOf(cell, key, false), colours)) {
        const found = at(frontier(units, key), Number(level.value));
        if (!found) continue;
        const name = JSON.stringify([series, besideLayer(cell)]);
        if (!lines.has(name)) lines.set(name, { series, site: axisOf(cell.points[0], "site"), places: [] });
        lines.get(name).places.push({ layer: axisOf(cell.points[0], "layer"), ...found });
      }
    }
    const sites = [...new Set([...lines.values()].map(line => line.site))].sort();
    const traces = [...lines.values()].map(({ series, site, places }) => {
      places.sort((a, b) => a.layer - b.layer);
      const color = colours.colour(series), name = [colours.name(series), ...(sites.length > 1 ? [site] : [])].join(" · ");
      return {
        type: "scatter", mode: "lines+markers", name, legendgroup: name, x: places.map(p => p.layer), y: places.map(p => p.y),
        line: { color, dash: DASHES[sites.indexOf(site) % DASHES.length] }, marker: { color, size: 8 },
        error_y: metrics[key].error ? { type: "data", array: places.map(p => p.error), color, thickness: 1.2, width: 3 } : undefined,
        hovertemplate: `${escaped(name)}<br>layer %{x} · ${metrics[key].title} %{y:.4g}<extra></extra>`,
      };
    });
    panel.querySelector(".key").replaceChildren(...traces.map(trace => h("span", {}, h("i", { style: `border-top-color: ${trace.line.color}` }), trace.name)));
    if (!traces.length) return null;
    return [traces, { xaxis: { title: { text: "layer" }, dtick: Math.ceil(valuesOf("layer").length / 16) }, yaxis: { title: { text: metrics[key].axis, standoff: 8 } } }];
  };
  chart(element, paint, "layers");
  for (const choice of [of, level]) choice.addEventListener("change", () => repaint());
}
