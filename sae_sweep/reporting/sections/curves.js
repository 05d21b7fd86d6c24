// Members of one architecture share its colour, paler from one to the next; the pointer on a name picks one out.
const PALENESS = [1, 0.75, 0.55, 0.4];
const curves = data;
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

buildLegend();
draws.push(drawCurves);
