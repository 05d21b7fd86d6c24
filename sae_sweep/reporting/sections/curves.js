// Members of one architecture share its colour, paler from one to the next; the pointer on a name picks one out.
const PALENESS = [1, 0.75, 0.55, 0.4];
const MOST_NAMES = 64; // more names than these are no legend: then architectures alone have one
const curves = data;
const architectures = [...new Set(curves.map(curve => curve.architecture))].sort();
const nth = curves.map((curve, index) => curves.slice(0, index).filter(other => other.architecture === curve.architecture).length);
const hidden = new Set();
let pointed = null;

const isDrawn = index => !hidden.has(index) && isShown(pointOf.get(curves[index].member));
const seriesOf = name => axes.controls.includes(name) ? { control: name } : { value: name };

function paintCurves(key) {
  const colours = scale("architecture");
  const traces = curves.map((curve, index) => isDrawn(index) && curve.tokens.length ? {
    type: "scatter", mode: "lines", name: curve.member, x: curve.tokens, y: curve[key], showlegend: false, customdata: curve.tokens.map(() => curve.member),
    opacity: pointed === null ? PALENESS[nth[index] % PALENESS.length] : pointed === index ? 1 : 0.1,
    line: { color: colours.colour(seriesOf(curve.architecture)), width: pointed === index ? 2.6 : 1.5, dash: colours.dash(seriesOf(curve.architecture)) },
    hovertemplate: `${escaped(curve.member)}<br>%{x:.3s} tokens · ${key} %{y:.4g}<extra></extra>`,
  } : null).filter(Boolean);
  if (!traces.length) return null;
  return [traces, {
    xaxis: { title: { text: "training tokens" }, tickformat: "~s", nticks: 6 },
    yaxis: logAxis(traces.flatMap(trace => trace.y), key === "l0" ? "L0 (active latents per token)" : "loss per token", 1.1),
  }];
}

function buildLegend(legend) {
  const chips = new Map(), rows = new Map();
  const chip = (name, text, own, all) => {
    const button = h("button", { type: "button", class: all ? "all" : null, "aria-pressed": "true", onclick: () => toggleAll(own) }, text);
    rows.get(name).append(button);
    return button;
  };
  const toggleAll = own => {
    const hide = own.some(index => !hidden.has(index));
    for (const index of own) hide ? hidden.add(index) : hidden.delete(index);
    refresh();
    repaint();
  };
  const point = (index, event) => { if (event.pointerType !== "mouse") return; pointed = index; repaint(); };
  for (const name of architectures) {
    rows.set(name, legend.appendChild(h("div")));
    const own = curves.map((_, index) => index).filter(index => curves[index].architecture === name);
    chips.set(chip(name, name, own, true), own);
    if (curves.length > MOST_NAMES) continue;
    for (const index of own) {
      const button = chip(name, curves[index].member, [index], false);
      chips.set(button, [index]);
      button.addEventListener("pointerenter", event => point(index, event));
      button.addEventListener("pointerleave", event => point(null, event));
    }
  }
  const refresh = () => {
    const colours = scale("architecture");
    for (const [name, row] of rows) row.style.setProperty("--line", colours.colour(seriesOf(name)));
    for (const [button, own] of chips) {
      button.setAttribute("aria-pressed", String(own.some(index => !hidden.has(index))));
      button.hidden = !own.some(index => isShown(pointOf.get(curves[index].member)));
    }
  };
  onChange(refresh);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  refresh();
}

const legend = document.querySelector(".curves .legend");
if (legend) {
  buildLegend(legend);
  for (const element of document.querySelectorAll(".curves .chart")) chart(element, () => paintCurves(element.dataset.curve), element.dataset.curve);
}
