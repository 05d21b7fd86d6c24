"use strict";
// What the sections' scripts share. Everything static (tables, definitions) is already in the page.
const { cells, choices, metrics, sections } = JSON.parse(document.getElementById("data").textContent);
const draws = []; // what is drawn, each time that colours or the width change

// Colour and symbol of a known architecture are the same in every report. Its other forms (gated_decoder_norm,
// topk_tokenized) share them, told apart by an open symbol and a dashed line; a new one takes what is left over.
const KNOWN = ["standard", "gated", "topk", "jumprelu", "batchtopk", "matryoshka", "standard_april", "p_anneal"];
const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "star", "x", "pentagon"];
const architectures = [...new Set(cells.flatMap(cell => cell.points.map(point => point.architecture)))].sort();
const known = name => KNOWN.filter(base => name === base || name.startsWith(base + "_")).sort((a, b) => b.length - a.length)[0];
const others = architectures.filter(name => !known(name));
const slots = [...SYMBOLS.keys()], left = slots.filter(index => !architectures.some(name => known(name) === KNOWN[index]));
const slot = name => known(name) ? KNOWN.indexOf(known(name)) : (left.length ? left : slots)[others.indexOf(name) % (left.length || slots.length)];
const forms = name => architectures.filter(other => slot(other) === slot(name)).sort((a, b) => KNOWN.includes(b) - KNOWN.includes(a));
const form = name => forms(name).indexOf(name) % 4;
const symbol = name => SYMBOLS[slot(name)] + ["", "-open", "-dot", "-open-dot"][form(name)];
const dash = name => ["solid", "dash", "dot", "dashdot"][form(name)];
const variable = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colour = name => variable("--c" + slot(name));

const number = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
const short = value => value === null ? "–" : String(Number(value.toPrecision(6)));
const escaped = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");
const told = (point, metric) => {
  const [value, error] = [point[metric.key], metric.error ? point[metric.error] : null];
  const scaled = number => number === null ? null : number * metric.scale;
  return `${metric.title} ${number(scaled(value), metric.digits)}` + (error === null ? "" : ` ±${number(scaled(error), metric.digits)}`);
};
for (const key of Object.keys(metrics)) metrics[key].key = key;

// A point's numbers: those with an error have a line of their own, others share one.
function hover(cell, point) {
  const own = ["l0", ...choices[cells.indexOf(cell)]].map(key => metrics[key]).filter(metric => point[metric.key] !== null);
  const alone = own.filter(metric => metric.error), shared = own.filter(metric => !metric.error).map(metric => told(point, metric));
  return [
    `<b>${escaped(point.member)}</b>`,
    `${escaped(point.architecture)} · ${point.knob}=${short(point.knob_value)} · width ${short(point.width)}`,
    `lr ${short(point.lr)} · seed ${short(point.seed)}`,
    ...alone.map(metric => told(point, metric)),
    ...shared.filter((_, index) => index % 2 === 0).map((text, index) => [text, ...shared.slice(2 * index + 1, 2 * index + 2)].join(" · ")),
  ].join("<br>");
}

function layout(extra) {
  const axis = { gridcolor: variable("--grid"), linecolor: variable("--rule"), zeroline: false, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    font: { family: "system-ui, sans-serif", size: 13, color: variable("--ink") },
    hoverlabel: { align: "left", bgcolor: variable("--panel"), bordercolor: variable("--rule"), font: { color: variable("--ink") } },
    margin: { l: 10, r: 14, t: 10, b: 10 },
    ...extra,
    xaxis: { ...axis, ...extra.xaxis }, yaxis: { ...axis, ...extra.yaxis },
  };
}

const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false };
const draw = (element, traces, extra) => Plotly.react(element, traces, layout(extra), CONFIG);

// 1-2-5 ticks: plotly's own labels on a log axis that spans little more than a decade are hard to read.
function logAxis(values, text, margin) {
  const found = values.filter(value => value > 0);
  if (!found.length) return { title: { text } };
  const low = found.reduce((a, b) => Math.min(a, b)) / margin, high = found.reduce((a, b) => Math.max(a, b)) * margin;
  const steps = high / low > 2000 ? [1] : high / low > 6 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  const tickvals = [];
  for (let power = -9; power < 12; power++) for (const step of steps) tickvals.push(Number((step * 10 ** power).toPrecision(3)));
  const label = value => value >= 1e4 || value < 1e-3 ? value.toExponential().replace("e+", "e") : String(value);
  return { type: "log", title: { text }, tickvals, ticktext: tickvals.map(label), range: [Math.log10(low), Math.log10(high)] };
}
const l0Axis = points => logAxis(points.map(point => point.l0), "L0 (active latents per token, log scale)", 1.3);

function markers(cell, y) {
  const found = cell.points.filter(point => point.l0 > 0 && point[y] !== null);
  const traces = [];
  for (const name of architectures) {
    const points = found.filter(point => point.architecture === name);
    if (!points.length) continue;
    const byMember = new Map(points.map(point => [point.member, point]));
    const line = (cell.frontiers[name] || []).map(label => byMember.get(label)).filter(Boolean);
    const group = { legendgroup: name, name, type: "scatter" };
    traces.push({
      ...group, mode: "lines", x: line.map(p => p.l0), y: line.map(p => p[y]), hoverinfo: "skip", showlegend: false,
      line: { color: colour(name), width: 2, dash: dash(name) }, opacity: 0.75,
    });
    traces.push({
      ...group, mode: "markers", x: points.map(p => p.l0), y: points.map(p => p[y]), text: points.map(point => hover(cell, point)),
      hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
      marker: { color: colour(name), symbol: symbol(name), size: 10, line: { color: form(name) % 2 ? colour(name) : variable("--panel"), width: form(name) % 2 ? 2 : 1 } },
      error_y: metrics[y].error
        ? { type: "data", array: points.map(p => p[metrics[y].error] ?? 0), color: colour(name), thickness: 1.2, width: 3 } : undefined,
    });
  }
  return traces;
}

// A line at 1 where that is what is best.
const ideal = key => metrics[key].better !== "one" ? [] : [{
  type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: variable("--quiet"), width: 1, dash: "dash" },
}];

const cellOf = element => Number(element.closest("section.cell").dataset.cell);

function start() {
  if (!cells.length) return;
  const drawAll = () => draws.forEach(draw => draw());
  drawAll();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  window.matchMedia("(max-width: 759px)").addEventListener("change", drawAll);
}
