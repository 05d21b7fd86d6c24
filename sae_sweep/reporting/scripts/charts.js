// Charts: drawn when they come near the screen, again when filters, colours or the width change, and saved as pictures.
const charts = [];
const cellOf = element => Number(element.closest("section.cell").dataset.cell);

function layout(extra) {
  const axis = { gridcolor: variable("--grid"), linecolor: variable("--rule"), zeroline: false, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", showlegend: false,
    font: { family: "system-ui, sans-serif", size: 13, color: variable("--ink") },
    hoverlabel: { align: "left", bgcolor: variable("--panel"), bordercolor: variable("--rule"), font: { color: variable("--ink") } },
    margin: { l: 10, r: 14, t: 14, b: 10 },
    ...extra,
    xaxis: { ...axis, ...extra.xaxis }, yaxis: { ...axis, ...extra.yaxis },
  };
}

// A long title of the y axis takes a second line where the chart is low.
function fitted(extra, height) {
  const title = extra.yaxis?.title, text = title?.text ?? "";
  if (text.length * 7.6 < height - 60) return extra;
  return { ...extra, yaxis: { ...extra.yaxis, title: { ...title, text: text.replace(/ \(|, /, found => found === ", " ? ",<br>" : "<br>(") } } };
}

const CONFIG = { displaylogo: false, displayModeBar: false };

// `paint` gives [traces, layout], or null where there is nothing to draw; `name` is that of its pictures' files.
function chart(element, paint, name) {
  const one = { element, paint, name, stale: true, near: false };
  charts.push(one);
  element.before(tools(one));
  nearing.observe(element);
}

function paintNow(one) {
  one.stale = false;
  const made = one.paint();
  one.element.classList.toggle("empty", !made);
  if (!made) {
    Plotly.purge(one.element);
    return;
  }
  const { clientWidth: width, clientHeight: height } = one.element;
  Plotly.react(one.element, made[0], { ...layout(fitted(made[1], height)), width, height }, CONFIG);
  if (one.clicks) return;
  one.clicks = true;
  one.element.on("plotly_click", ({ points: [{ customdata }] }) => { if (pointOf.has(customdata)) openMember(customdata); });
}

const nearing = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    const one = charts.find(({ element }) => element === target);
    one.near = isIntersecting;
    if (one.near && one.stale) paintNow(one);
  }
}, { rootMargin: "500px" });

function repaint(all = false) {
  for (const one of charts) one.stale = true;
  for (const one of charts) if (all || one.near) paintNow(one);
}

// Pictures are made for paper: light, on white, with a legend, whatever the page looks like now.
async function pictureOf(one, format) {
  document.documentElement.dataset.theme = "light";
  const [traces, extra] = one.paint();
  const { clientWidth: width, clientHeight: height } = one.element;
  const shown = layout({ ...fitted(extra, height), showlegend: traces.some(trace => trace.showlegend !== false && trace.legendgroup) });
  delete document.documentElement.dataset.theme;
  const picture = { data: traces, layout: { ...shown, width, height, paper_bgcolor: "#fff", plot_bgcolor: "#fff" } };
  return Plotly.toImage(picture, { format, width, height, scale: format === "png" ? 2 : 1 });
}

function tools(one) {
  const button = format => h("button", {
    type: "button", "data-save": format, title: `save this chart as ${format.toUpperCase()}`,
    onclick: async () => { if (!one.stale || one.near) saveUrl(await pictureOf(one, format), `${one.name}.${format}`); },
  }, format.toUpperCase());
  return h("div", { class: "tools" }, button("svg"), button("png"));
}

// On paper there is room for one width, and everything is light.
function printing(on) {
  document.documentElement.classList.toggle("printing", on);
  if (on) document.documentElement.dataset.theme = "light";
  else delete document.documentElement.dataset.theme;
  if (cells.length) repaint(on);
}

function start() {
  if (!cells.length) return;
  onChange(() => {
    for (const panel of document.querySelectorAll("section.cell")) panel.hidden = !shownOf(cells[panel.dataset.cell]).length;
    repaint();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => repaint());
  window.matchMedia("print").addEventListener("change", event => printing(event.matches));
  window.addEventListener("beforeprint", () => printing(true));
  window.addEventListener("afterprint", () => printing(false));
  let width = document.body.clientWidth, waiting = null;
  new ResizeObserver(() => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    clearTimeout(waiting);
    waiting = setTimeout(() => repaint(), 80);
  }).observe(document.body);
  document.documentElement.dataset.ready = Math.round(performance.now()); // milliseconds from navigation until it answers
}
