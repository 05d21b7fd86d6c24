"use strict";
// Draws report.html from the data it carries. Everything static (tables, definitions) is already in the page.
const { cells, measures, maps, grids, curves } = JSON.parse(document.getElementById("data").textContent);

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
const narrow = () => window.innerWidth < 760;

const number = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
const percent = value => value === null ? "–" : (100 * value).toFixed(1) + "%";
const short = value => value === null ? "–" : String(Number(value.toPrecision(6)));
const escaped = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");
const withError = (value, error, digits) => number(value, digits) + (error === null ? "" : " ±" + number(error, digits));

function hover(point) {
  const fidelity = point.ce_recovered === null
    ? [`explained variance ${number(point.explained_variance, 4)}`,
      `MMCS true to learned ${number(point.mmcs_truth, 3)}, frequent ${number(point.mmcs_truth_frequent, 3)}`,
      `MMCS learned to true ${number(point.mmcs_latents, 3)}`]
    : [`CE recovered ${withError(point.ce_recovered, point.ce_recovered_se, 4)}`,
      `CE delta ${number(point.ce_delta, 4)} · KL ${number(point.kl, 4)} nats`];
  return [
    `<b>${escaped(point.member)}</b>`,
    `${escaped(point.architecture)} · ${point.knob}=${short(point.knob_value)} · width ${short(point.width)}`,
    `lr ${short(point.lr)} · seed ${short(point.seed)}`,
    `L0 ${withError(point.l0, point.l0_se, 1)}`,
    ...fidelity,
    `FVU ${number(point.fvu, 4)} · γ ${number(point.gamma, 3)}`,
    `alive ${percent(point.alive)} · dead ${percent(point.dead_fraction)}`,
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
      ...group, mode: "markers", x: points.map(p => p.l0), y: points.map(p => p[y]), text: points.map(hover),
      hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
      marker: { color: colour(name), symbol: symbol(name), size: 10, line: { color: form(name) % 2 ? colour(name) : variable("--panel"), width: form(name) % 2 ? 2 : 1 } },
      error_y: y === "ce_recovered"
        ? { type: "data", array: points.map(p => p.ce_recovered_se ?? 0), color: colour(name), thickness: 1.2, width: 3 } : undefined,
    });
  }
  return traces;
}

function rings(cell, y) {
  const best = new Set(cell.frontiers.overall);
  const points = cell.points.filter(point => best.has(point.member) && point.l0 > 0 && point[y] !== null);
  return {
    type: "scatter", mode: "markers", name: "on the frontier of the cell", x: points.map(p => p.l0), y: points.map(p => p[y]),
    hoverinfo: "skip", cliponaxis: false, marker: { symbol: "circle-open", size: 18, color: variable("--quiet"), line: { width: 1.4 } },
  };
}

function drawCell(section) {
  const cell = cells[Number(section.dataset.cell)];
  for (const element of section.querySelectorAll(".map")) drawMap(element, grids[Number(section.dataset.cell)][Number(element.dataset.grid)]);
  const select = section.querySelector(".measure");
  const [key, , axis] = measures.find(measure => measure[0] === select.value);
  const horizontal = { orientation: "h", x: 0, xanchor: "left", y: 1.01, yanchor: "bottom", itemsizing: "constant" };
  draw(section.querySelector(".frontier"), [rings(cell, key), ...markers(cell, key)], {
    xaxis: l0Axis(cell.points), yaxis: { title: { text: axis, standoff: 8 } }, legend: horizontal,
    shapes: key === "gamma" ? [unbiased()] : [],
  });
  draw(section.querySelector(".gamma"), markers(cell, "gamma"), {
    xaxis: l0Axis(cell.points), yaxis: { title: { text: "γ (1 is unbiased)", standoff: 8 } }, showlegend: false, shapes: [unbiased()],
  });
}

// One heat map: dictionary sizes upwards, the knob's values to the right, both evenly spaced whatever their ratios.
function drawMap(element, grid) {
  const key = element.dataset.map, title = maps.find(map => map[0] === key)[1];
  const values = grid.maps[key], digits = key === "l0" ? 1 : 3;
  const shade = key === "l0" ? values.map(row => row.map(value => value > 0 ? Math.log10(value) : null)) : values;
  const note = grid.members.map(row => row.map(count => count > 1 ? `<br>mean of ${count} members` : ""));
  draw(element, [{
    type: "heatmap", x: grid.values.map(short), y: grid.widths.map(short), z: shade, text: values.map(row => row.map(value => number(value, digits))),
    customdata: note, texttemplate: "%{text}", hovertemplate: `${title} %{text}<br>%{y} latents · ${grid.knob}=%{x}%{customdata}<extra></extra>`,
    zmin: key === "l0" ? undefined : 0, zmax: key === "l0" || key === "fvu" ? undefined : 1, colorscale: "Viridis", showscale: false, xgap: 1, ygap: 1,
  }], { xaxis: { type: "category", title: { text: grid.knob } }, yaxis: { type: "category", title: { text: "latents", standoff: 8 } } });
}

const unbiased = () => ({
  type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: variable("--quiet"), width: 1, dash: "dash" },
});

// Members of one architecture share its colour, paler from one to the next; the pointer on a name picks one out.
const PALENESS = [1, 0.75, 0.55, 0.4];
const nth = curves.map((curve, index) => curves.slice(0, index).filter(other => other.architecture === curve.architecture).length);
const hidden = new Set();
let pointed = null;

function drawCurves() {
  for (const element of document.querySelectorAll(".curves .chart")) {
    const key = element.dataset.curve;
    const traces = curves.map((curve, index) => ({
      type: "scatter", mode: "lines", name: curve.member, x: curve.tokens, y: curve[key], visible: !hidden.has(index),
      opacity: pointed === null ? PALENESS[nth[index] % PALENESS.length] : pointed === index ? 1 : 0.1,
      line: { color: colour(curve.architecture), width: pointed === index ? 2.6 : 1.5, dash: dash(curve.architecture) },
      hovertemplate: `${escaped(curve.member)}<br>%{x:.3s} tokens · ${key} %{y:.4g}<extra></extra>`,
    }));
    const shown = curves.filter((_, index) => !hidden.has(index)).flatMap(curve => curve[key]);
    draw(element, traces, {
      showlegend: false, xaxis: { title: { text: "training tokens" }, tickformat: "~s", nticks: 6 },
      yaxis: logAxis(shown, key === "l0" ? "L0 (active latents per token)" : "loss per token", 1.1),
    });
  }
}

function chip(parent, text, name, className) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = text;
  button.className = className;
  button.style.setProperty("--line", `var(--c${slot(name)})`);
  button.setAttribute("aria-pressed", "true");
  parent.append(button);
  return button;
}

function buildLegend() {
  const legend = document.querySelector(".curves .legend");
  if (!legend) return;
  const chips = new Map();
  const toggle = indices => {
    const hide = indices.some(index => !hidden.has(index));
    for (const index of indices) hide ? hidden.add(index) : hidden.delete(index);
    for (const [index, button] of chips) button.setAttribute("aria-pressed", String(!hidden.has(index)));
    drawCurves();
  };
  for (const name of architectures) {
    const row = document.createElement("div");
    legend.append(row);
    const indices = curves.map((_, index) => index).filter(index => curves[index].architecture === name);
    chip(row, name, name, "all").addEventListener("click", () => toggle(indices));
    for (const index of indices) {
      const button = chip(row, curves[index].member, name, "");
      chips.set(index, button);
      button.addEventListener("click", () => toggle([index]));
      button.addEventListener("pointerenter", event => { if (event.pointerType === "mouse") { pointed = index; drawCurves(); } });
      button.addEventListener("pointerleave", () => { if (pointed !== null) { pointed = null; drawCurves(); } });
    }
  }
}

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

function drawAll() {
  document.querySelectorAll("section.cell").forEach(drawCell);
  drawCurves();
}

if (cells.length) {
  buildLegend();
  document.querySelectorAll("section.cell").forEach(section =>
    section.querySelector(".measure").addEventListener("change", () => drawCell(section)));
  drawAll();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  window.matchMedia("(max-width: 759px)").addEventListener("change", drawAll);
}
