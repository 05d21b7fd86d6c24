// Colours, symbols and axes. Nothing here knows an architecture: which colour each has is in the data.
const variable = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "star", "pentagon", "cross", "hexagon"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const widths = [...new Set(points.map(point => point.width))].sort((a, b) => a - b);
const symbolOf = point => SYMBOLS[Math.max(0, widths.indexOf(point.width)) % SYMBOLS.length];
const isControl = point => axes.controls.includes(point.architecture);

const RAMP = ["--r0", "--r1", "--r2", "--r3", "--r4"];
function ramp(share) {
  const place = share * (RAMP.length - 1), index = Math.min(Math.floor(place), RAMP.length - 2);
  const [from, to] = [RAMP[index], RAMP[index + 1]].map(name => variable(name).match(/\w\w/g).map(hex => parseInt(hex, 16)));
  return "#" + from.map((value, i) => Math.round(value + (to[i] - value) * (place - index)).toString(16).padStart(2, "0")).join("");
}

// How an axis is coloured: numbers from dark to light by their order, words each with a colour of its own. Controls are
// grey whatever the axis, told apart by their dashes, and make series of their own.
function scale(key) {
  const controls = axes.controls, values = valuesOf(key, points.filter(point => !isControl(point)));
  const ordered = values.length > 1 && values.every(value => typeof value === "number");
  const place = value => values.findIndex(other => valueKey(other) === valueKey(value));
  const slot = value => key === "architecture" ? axes.colours[value] : place(value) % 12;
  const colour = value => ordered ? ramp(place(value) / (values.length - 1)) : variable(`--c${slot(value)}`);
  const series = point => isControl(point) ? { control: point.architecture } : { value: axisOf(point, key) };
  return {
    key,
    series,
    name: ({ control, value }) => control ?? short(value),
    colour: ({ control, value }) => control ? variable("--control") : colour(value),
    dash: ({ control, value }) => DASHES[control ? 1 + controls.indexOf(control) % 4 : ordered ? 0 : Math.floor(place(value) / 12) % 5],
    all: [...values.map(value => ({ value })), ...controls.map(control => ({ control }))],
  };
}

// 1-2-5 ticks: plotly's own labels on a log axis that spans little more than a decade are hard to read.
function logAxis(values, text, margin) {
  const found = values.filter(value => value > 0);
  if (!found.length) return { title: { text } };
  const low = found.reduce((a, b) => Math.min(a, b)) / margin, high = found.reduce((a, b) => Math.max(a, b)) * margin;
  const steps = high / low > 2000 ? [1] : high / low > 6 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  const tickvals = [], last = Math.ceil(Math.log10(high));
  for (let power = Math.floor(Math.log10(low)); power <= last; power++) for (const step of steps) tickvals.push(Number((step * 10 ** power).toPrecision(3)));
  const label = value => value >= 1e4 || value < 1e-3 ? value.toExponential().replace("e+", "e") : String(value);
  return { type: "log", title: { text }, tickvals, ticktext: tickvals.map(label), range: [Math.log10(low), Math.log10(high)] };
}
const l0Axis = some => logAxis(some.map(point => point.l0), "L0 (active latents per token, log scale)", 1.3);

// Names without the words that all have: at the beginning, at the end, and anywhere where they have equally many.
function apart(names) {
  const words = names.map(name => name.split("-"));
  const alike = from => words.length > 1 && words.every(own => own.length > 1 && own.at(from) === words[0].at(from));
  while (alike(-1)) words.forEach(own => own.pop());
  while (alike(0)) words.forEach(own => own.shift());
  const many = words.length > 1 && words.every(own => own.length === words[0].length);
  return many ? words.map(own => own.filter((_, i) => words.some(other => other[i] !== own[i]) || own.length < 2)) : words;
}

// An axis of names: without what all have, cut in the middle where they are long, and as many as `room` (in pixels) has place for; those
// below a chart are upright where they would not fit side by side.
const MOST_LETTERS = 22, LINE_PIXELS = 16, LETTER_PIXELS = 8;
function nameAxis(names, text, below, room) {
  const all = [...new Set(names)], words = apart(all), every = Math.max(1, Math.ceil(all.length * LINE_PIXELS / room));
  const cut = own => { const name = own.join("-"); return name.length > MOST_LETTERS ? `${name.slice(0, MOST_LETTERS / 2 - 1)}…${name.slice(-MOST_LETTERS / 2)}` : name; };
  const told = some => some.filter((_, i) => i % every === 0), labels = told(words.map(cut));
  const upright = below && labels.join("").length * LETTER_PIXELS + labels.length * LINE_PIXELS > room;
  return { type: "category", title: { text, standoff: 8 }, tickvals: told(all), ticktext: labels, ...(upright ? { tickangle: -90 } : {}) };
}
