// A figure is series over common axes, or a map with a row for each series, as analyses/session/result.py has it.
const STYLES = { line: "lines+markers", dashed: "lines", points: "markers", bars: "bars" };
const modeOf = series => series.x.length === 1 ? "markers" : STYLES[series.style] ?? "lines+markers"; // of one point there is no line

// What the key says of a series: members that differ in their seed alone are one, and so are controls of one kind.
const SEED = /-s\d+(?=-|,|$)/;
function keyed(figure) {
  const plain = figure.series.map(({ name, style }) => style === "dashed" ? name.split(", ").at(-1) : name);
  const stems = plain.map(name => name.replace(SEED, "")), many = stem => plain.filter((name, i) => stems[i] === stem && name !== stem).length;
  const labels = stems.map((stem, i) => many(stem) < 2 ? plain[i] : `${stem}, ${many(stem)} seeds`);
  const coloured = [...new Set(labels.filter((_, i) => figure.series[i].style !== "dashed"))];
  return figure.series.map(({ style }, i) => ({
    label: labels[i], first: labels.indexOf(labels[i]) === i,
    colour: () => style === "dashed" ? variable("--control") : variable(`--c${coloured.indexOf(labels[i]) % 12}`),
  }));
}

function seriesTrace(series, { label, first, colour }) {
  const color = colour(), name = series.name;
  const error_y = series.error ? { type: "data", array: series.error.map(error => error ?? 0), color, thickness: 1.2, width: 3 } : undefined;
  const common = { name: label, legendgroup: label, showlegend: first, x: series.x, y: series.y, error_y, hovertemplate: `${escaped(name)}<br>%{x} · %{y:.4g}<extra></extra>` };
  if (series.style === "bars") return { ...common, type: "bar", marker: { color } };
  return { ...common, type: "scatter", mode: modeOf(series), line: { color, width: 2, dash: series.style === "dashed" ? "dash" : "solid" }, marker: { color, size: 8 } };
}

const AROUND = 110; // pixels of a chart that its axes and their words take

function paintFigure(figure, { clientWidth, clientHeight }) {
  const [across, down] = [clientWidth - AROUND, clientHeight - AROUND];
  const title = text => ({ title: { text, standoff: 8 } });
  if (figure.kind === "map") {
    const z = figure.series.map(series => series.y);
    return [[{
      type: "heatmap", x: figure.series[0].x.map(String), y: figure.series.map(series => series.name), z, colorscale: "Viridis", xgap: 1, ygap: 1,
      colorbar: { thickness: 10, outlinewidth: 0 }, hovertemplate: "%{y}<br>%{x}<br>%{z:.4g}<extra></extra>", texttemplate: z.flat().length <= 120 ? "%{z:.3g}" : undefined,
    }], { xaxis: nameAxis(figure.series[0].x.map(String), figure.x, true, across - AROUND), yaxis: { ...nameAxis(figure.series.map(series => series.name), figure.y, false, down - AROUND), autorange: "reversed" } }];
  }
  const values = name => figure.series.flatMap(series => series[name]).filter(value => typeof value === "number");
  const names = figure.series.flatMap(series => series.x).filter(value => typeof value === "string");
  const axis = (name, log) => name === "x" && names.length ? nameAxis(names, figure.x, true, across) : log ? logAxis(values(name), figure[name], 1.15) : title(figure[name]);
  const keys = keyed(figure);
  return [figure.series.map((series, index) => seriesTrace(series, keys[index])), { xaxis: axis("x", figure.log_x), yaxis: axis("y", figure.log_y), barmode: "group" }];
}

for (const element of document.querySelectorAll(".chart.analysis")) {
  const figure = data[Number(element.dataset.index)], key = element.previousElementSibling;
  if (!Array.isArray(figure?.series) || !figure.series.length) {
    element.remove();
    continue;
  }
  element.setAttribute("aria-label", figure.title);
  key.before(h("h3", {}, figure.title));
  chart(element, () => {
    const line = (series, one) => h("i", { style: `border-top-color: ${one.colour()}; border-top-style: ${series.style === "dashed" ? "dashed" : "solid"}` });
    const entries = figure.kind === "map" ? [] : keyed(figure).map((one, index) => one.first ? h("span", {}, line(figure.series[index], one), one.label) : "");
    key.replaceChildren(...entries.filter(Boolean));
    return paintFigure(figure, element);
  }, `analysis-${element.dataset.index}`);
}
