// Published members are seen beside a cell's, told apart by a thin mark and a dotted line, and are on no frontier of it.
function publishedTraces(rows, key) {
  const kinds = [...new Set(rows.map(row => row.architecture))].sort();
  return kinds.map((name, index) => {
    const own = rows.filter(row => row.architecture === name && row[key] !== null && row.l0 > 0).sort((a, b) => a.l0 - b.l0);
    const words = row => `<b>published: ${escaped(name)}</b><br>${row.knob}=${short(row.knob_value)} · width ${short(row.width)}<br>` +
      `${told(row, metrics.l0)} · ${told(row, metrics[key])}<br>${escaped(row.citation).replace(/(.{60}\S*) /g, "$1<br>")}`;
    return {
      type: "scatter", mode: "markers+lines", name: `published: ${name}`, legendgroup: `published: ${name}`, meta: "published",
      x: own.map(row => row.l0), y: own.map(row => row[key]), text: own.map(words), hovertemplate: "%{text}<extra></extra>",
      line: { color: variable("--quiet"), width: 1, dash: "dot" },
      marker: { symbol: ["x-thin-open", "asterisk-open", "cross-thin-open", "y-up-open"][index % 4], size: 9, color: variable("--quiet"), line: { width: 1.5 } },
    };
  }).filter(trace => trace.x.length);
}

const DRAWN = { circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", star: "★", pentagon: "⬟", cross: "✚", hexagon: "⬢" };

// What the marks mean, in the page itself, so that it wraps as text does. A series that can be filtered is a button.
function fillKey(element, traces, units, colours) {
  const entries = bySeries(units, colours).map(({ series }) => {
    const mark = h("i", { style: `border-top-color: ${colours.colour(series)}; border-top-style: ${{ solid: "solid", dash: "dashed", longdash: "dashed" }[colours.dash(series)] ?? "dotted"}` });
    const [key, value] = series.control ? ["architecture", series.control] : [colours.key, series.value];
    return h("button", { type: "button", title: "show this alone", onclick: () => only(key, value), disabled: !hiddenOn.has(key) }, mark, colours.name(series));
  });
  const sizes = [...new Set(units.map(unit => unit.point.width))].sort((a, b) => a - b);
  const symbols = widths.length > 1 ? sizes.map(width => h("span", {}, `${DRAWN[symbolOf({ width })]} width ${short(width)}`)) : [];
  const papers = traces.filter(trace => trace.meta === "published").map(trace => h("span", {}, h("i", { style: "border-top: 2px dotted var(--quiet)" }), trace.name));
  const cut = units.some(unit => marked(unit.point).hollow) ? [h("span", {}, "○ cut to its L0 at the end")] : [];
  element.replaceChildren(...entries, ...symbols, ...cut, ...papers);
}

function build(element) {
  const cell = cells[cellOf(element)], panel = element.closest("section.cell"), measure = panel.querySelector(".measure");
  const some = cell.points, axesHere = Object.keys(axes.titles).filter(key => key === "architecture" || valuesOf(key, some).length > 1);
  const names = axesHere.includes("architecture") ? axesHere : ["architecture", ...axesHere];
  const colour = h("select", { class: "colour" }, names.sort((a, b) => (b === "architecture") - (a === "architecture")).map(key => h("option", { value: key }, axes.titles[key] ?? "Architecture")));
  const seeds = h("input", { type: "checkbox", class: "seeds", checked: true });
  const several = some.some(point => axes.twins[point.member] !== undefined);
  panel.querySelector(".controls").append(
    ...(names.length > 1 ? [h("label", {}, "colour: ", colour)] : []),
    ...(several ? [h("label", { title: "one mark for members that differ in their seed alone; bands are ±1 standard deviation" }, seeds, " mean of seeds")] : []),
  );
  const paint = () => {
    const key = measure.value, colours = scale(colour.value || "architecture");
    if (!key) return null;
    const { traces, units } = markers(cell, key, { colours, averaged: averages(element) });
    const all = [rings(units, key), ...traces, ...publishedTraces(data[cellOf(element)], key)];
    fillKey(panel.querySelector(".key"), all, units, colours);
    return [all, { xaxis: l0Axis([...units, ...data[cellOf(element)]]), yaxis: { title: { text: metrics[key].axis, standoff: 8 } }, shapes: ideal(key) }];
  };
  chart(element, paint, `frontier-${cellOf(element)}`);
  for (const choice of [measure, colour, seeds]) choice.addEventListener("change", () => repaint());
}

document.querySelectorAll(".chart.frontier").forEach(build);
