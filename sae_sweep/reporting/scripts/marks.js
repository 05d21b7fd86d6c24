// Members as marks in the plane of L0 and a measure, their frontiers, and the means over seeds.

// Whether a member may be on a frontier, and how its mark looks: where a kind of member is marked apart, it is here.
const takesPart = point => !point.trimmed || cells.some(cell => cell.with_trimmed);
const marked = point => ({ symbol: symbolOf(point), hollow: Boolean(point.trimmed) });

const goodness = (value, key) => metrics[key].better === "lower" ? -value : metrics[key].better === "one" ? -Math.abs(value - 1) : value;

// What no other beats on both L0 and the measure, by rising L0; equal ones stand together. As pareto.py has it.
function frontier(units, key) {
  const kept = [], sorted = units.filter(unit => unit.takesPart).sort((a, b) => a.l0 - b.l0 || goodness(b.y, key) - goodness(a.y, key));
  let best = -Infinity, place = null;
  for (const unit of sorted) {
    const good = goodness(unit.y, key);
    if (good > best || (place && unit.l0 === place.l0 && unit.y === place.y)) {
      kept.push(unit);
      [best, place] = [good, unit];
    }
  }
  return kept;
}

const mean = values => values.reduce((a, b) => a + b, 0) / values.length;
const deviation = values => values.length < 2 ? 0 : Math.sqrt(values.reduce((sum, value) => sum + (value - mean(values)) ** 2, 0) / (values.length - 1));

// Whether a cell's charts show means over seeds: where its frontier's box is ticked.
const averages = element => element.closest("section.cell").querySelector(".seeds")?.checked ?? false;

// What is drawn of a cell: its shown members, or those that differ in their seed alone as one, with the seeds' spread.
function unitsOf(cell, key, averaged) {
  const groups = new Map();
  for (const point of shownOf(cell)) {
    if (!(point.l0 > 0) || point[key] === null || point[key] === undefined) continue;
    const twin = averaged ? axes.twins[point.member] : undefined, name = twin === undefined ? point.member : twin;
    groups.set(name, [...(groups.get(name) ?? []), point]);
  }
  return [...groups.values()].map(some => ({
    points: some,
    point: some[0],
    l0: some.length > 1 ? mean(some.map(point => point.l0)) : some[0].l0,
    y: some.length > 1 ? mean(some.map(point => point[key])) : some[0][key],
    spread: deviation(some.map(point => point[key])),
    error: Math.hypot(metrics[key].error ? some[0][metrics[key].error] ?? 0 : 0, deviation(some.map(point => point[key])) / Math.sqrt(some.length)),
    takesPart: some.every(takesPart),
  }));
}

// A measure at an L0: linear in log L0 between neighbours on a frontier, with the larger error of the two; null outside.
function at(curve, l0) {
  for (let index = 0; index < curve.length; index++) {
    const [left, right] = [curve[index], curve[index + 1]];
    if (left.l0 === l0) return { y: left.y, error: left.error };
    if (right && left.l0 < l0 && l0 < right.l0) {
      const share = Math.log(l0 / left.l0) / Math.log(right.l0 / left.l0);
      return { y: left.y + share * (right.y - left.y), error: Math.max(left.error, right.error) };
    }
  }
  return null;
}

// Powers of two between the smallest and the largest L0.
function levels(units) {
  const found = units.map(unit => unit.l0);
  if (!found.length) return [];
  const [low, high] = [Math.min(...found), Math.max(...found)];
  return [...Array(20).keys()].map(power => 2 ** power).filter(level => low <= level && level <= high);
}

// Units by series, in the scale's order.
function bySeries(units, colours) {
  const found = new Map(colours.all.map(series => [valueKey(series), { series, units: [] }]));
  for (const unit of units) found.get(valueKey(colours.series(unit.point)))?.units.push(unit);
  return [...found.values()].filter(({ units }) => units.length);
}

const MOST_BARS = 80; // members with error bars; more of them hide what they are about

function markers(cell, key, { colours = scale("architecture"), averaged = false, lines = true } = {}) {
  const units = unitsOf(cell, key, averaged), traces = [];
  for (const { series, units: own } of bySeries(units, colours)) {
    const name = colours.name(series), colour = colours.colour(series), line = { color: colour, width: 2, dash: colours.dash(series) };
    const best = lines ? frontier(own, key) : [];
    const group = { legendgroup: name, name, type: "scatter" };
    if (averaged && best.some(unit => unit.spread > 0)) traces.push(band(best, colour, group));
    traces.push({ ...group, mode: "lines", x: best.map(unit => unit.l0), y: best.map(unit => unit.y), hoverinfo: "skip", showlegend: false, line, opacity: 0.75 });
    traces.push(dots(cell, own, key, colour, group, units.length <= MOST_BARS));
  }
  return { traces, units };
}

function dots(cell, units, key, colour, group, bars) {
  const looks = units.map(unit => marked(unit.point)), hollow = looks.map(look => look.hollow);
  const errors = units.map(unit => unit.points.length > 1 ? unit.spread : unit.error);
  return {
    ...group, mode: "markers", x: units.map(unit => unit.l0), y: units.map(unit => unit.y), meta: "members",
    text: units.map(unit => unit.points.length > 1 ? meanHover(unit, key) : hover(cell, unit.point)), customdata: units.map(unit => unit.point.member),
    hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
    marker: {
      color: colour, symbol: looks.map(look => look.symbol + (look.hollow ? "-open" : "")), size: units.length > 60 ? 8 : 10,
      line: { color: hollow.map(open => open ? colour : variable("--panel")), width: hollow.map(open => open ? 2 : 1) },
    },
    error_y: bars && errors.some(Boolean) ? { type: "data", array: errors, color: colour, thickness: 1.2, width: 3 } : undefined,
  };
}

function meanHover(unit, key) {
  const { title, digits, scale: times } = metrics[key];
  const numbers = `${title} ${number(unit.y * times, digits)} ±${number(unit.spread * times, digits)} over seeds · L0 ${number(unit.l0, 1)}`;
  return [`<b>mean of ${unit.points.length} seeds</b>`, numbers, ...unit.points.map(point => escaped(point.member))].join("<br>");
}

// One standard deviation over seeds to each side.
function band(units, color, group) {
  const back = [...units].reverse();
  return {
    ...group, mode: "lines", fill: "toself", fillcolor: color, opacity: 0.16, line: { width: 0 }, hoverinfo: "skip", showlegend: false, meta: "band",
    x: [...units, ...back].map(unit => unit.l0), y: [...units.map(unit => unit.y + unit.spread), ...back.map(unit => unit.y - unit.spread)],
  };
}

// A ring around what is on the frontier of the whole cell.
function rings(units, key) {
  const best = frontier(units, key);
  return {
    type: "scatter", mode: "markers", name: "on the frontier of the cell", x: best.map(unit => unit.l0), y: best.map(unit => unit.y), meta: "rings",
    hoverinfo: "skip", cliponaxis: false, marker: { symbol: "circle-open", size: 18, color: variable("--quiet"), line: { width: 1.4 } },
  };
}

// A line at 1 where that is what is best.
const ideal = key => metrics[key].better !== "one" ? [] : [{
  type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: variable("--quiet"), width: 1, dash: "dash" },
}];
