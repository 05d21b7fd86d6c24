// One dialog, filled anew for each member; its address can be kept (#member=...).
const dialog = document.querySelector("dialog.member");
const pairs = (entries, name) => h("table", { class: name }, h("tbody", {}, entries.map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, key), h("td", {}, value)))));
const part = (title, ...children) => h("section", {}, h("h3", {}, title), ...children);

function snippet(label, folder) {
  const text = `import sae_sweep as ss\n\nsae = ss.load("${folder}")\nmodel = sae.model()\nf = sae.latents(model, "text")`;
  const copy = h("button", { type: "button", onclick: () => navigator.clipboard?.writeText(text) }, "copy");
  return part("Load", h("pre", { class: "snippet" }, text), copy, h("p", { class: "quiet" }, `SAELens reads the same folder: SAE.load_from_disk("${folder}")`));
}

function numbers(point) {
  const found = Object.values(metrics).filter(metric => typeof point[metric.key] === "number" && !Object.values(metrics).some(other => other.error === metric.key));
  const text = metric => Number.isInteger(point[metric.key]) && point[metric.key] > 999
    ? point[metric.key].toLocaleString("en") : told(point, metric).slice(metric.title.length + 1) + (metric.scale === 100 ? " %" : "");
  return pairs(found.map(metric => [metric.scale === 100 ? metrics[metric.key].name : metric.heading, text(metric)]), "numbers");
}

const byLayer = layers => h("table", { class: "numbers" },
  h("thead", {}, h("tr", {}, ["reads", "FVU", "L0", "alive %"].map(name => h("th", { scope: "col" }, name)))),
  h("tbody", {}, layers.map(layer => h("tr", {}, h("th", { scope: "row", title: `writes to ${layer.writes} and those of later layers` }, layer.reads),
    [layer.fvu.toPrecision(3), layer.l0.toPrecision(3), (100 * layer.alive).toFixed(1)].map(text => h("td", {}, text))))));

function histogram(counts) {
  const place = h("div", { class: "chart density", role: "img", "aria-label": "How often latents fire" });
  const step = -data.lowest / data.bins, edges = [...Array(data.bins).keys()].map(bin => data.lowest + step * bin);
  return { place, draw: () => Plotly.react(place, [{
    type: "bar", x: edges.map(edge => edge + step / 2), y: counts.slice(1), width: step * 0.92, marker: { color: variable("--c0") },
    hovertemplate: "%{y} latents<extra></extra>",
  }], { ...layout({
    xaxis: { title: { text: "share of held-out tokens a latent fires on" }, range: [data.lowest - 0.3, 0.1], tickvals: [-7, -6, -5, -4, -3, -2, -1, 0], ticktext: ["1e-7", "1e-6", "1e-5", "1e-4", "0.001", "0.01", "0.1", "1"] },
    yaxis: { title: { text: "latents", standoff: 8 } },
  }), width: place.clientWidth, height: place.clientHeight }, CONFIG) };
}

// Newlines are seen, indentation is not.
const oneLine = token => token.replace(/\n[\n ]*/g, "↵ ").replace(/ {3,}/g, "  ");

// A context has digits for activations: 9 is the latent's largest on these tokens.
function context({ tokens, strengths, at, activation }) {
  const line = h("div", { class: "context" }, h("b", {}, activation.toPrecision(3)));
  const text = h("code");
  tokens.forEach((token, index) => {
    const strength = Number(strengths[index]);
    text.append(h("span", { class: index === at ? "at" : null, style: strength ? `--strength:${strength / 9}` : null }, oneLine(token)));
  });
  line.append(text);
  return line;
}

function latentCard(latent) {
  const effects = (name, list) => h("p", {}, h("span", { class: "quiet" }, name), list.map(([token, value]) => h("span", { class: "token", title: value.toPrecision(3) }, oneLine(token))));
  return h("details", { class: "latent" },
    h("summary", {}, `latent ${latent.id}`, h("span", {}, `fires on ${(latent.density * 100).toPrecision(2)} % of tokens`)),
    ...latent.quantiles.filter(({ contexts }) => contexts.length).flatMap(({ name, contexts }) => [h("h4", {}, name), ...contexts.map(context)]),
    ...(latent.effects ? [h("h4", {}, "Tokens it makes likelier, and less likely"), effects("+ ", latent.effects.positive), effects("− ", latent.effects.negative)] : []),
    ...(latent.neighbours ? [h("h4", {}, "Nearest decoder rows"), h("p", {}, latent.neighbours.map(([id, cosine]) => h("span", { class: "token" }, `latent ${id}, cosine ${cosine.toFixed(2)}`)))] : []),
  );
}

function latents(found) {
  if (!found?.latents.length) return part("Latents", h("p", { class: "quiet" }, "Nobody has looked at them: `sae-sweep report DIR --latents 20` does, with the model at hand."));
  const cards = found.latents.map(latentCard);
  if (cards.length) cards[0].open = true;
  return part("Latents", h("p", { class: "quiet" }, found.told), ...cards);
}

openMember = label => {
  const point = pointOf.get(label), { folder, config, made, density, layers } = data.members[label];
  const close = h("button", { type: "button", class: "close", "aria-label": "close", onclick: () => dialog.close() }, "✕");
  const chart = density ? histogram(density) : null;
  const own = Object.entries(config), common = Object.entries(data.common);
  dialog.replaceChildren(
    h("div", { class: "title" }, h("h2", {}, label), close),
    h("p", { class: "quiet" }, folder),
    h("div", { class: "pair" },
      h("div", {}, part("Numbers", numbers(point))),
      h("div", {}, snippet(label, folder), ...(chart ? [part("Density", chart.place, h("p", { class: "quiet" }, `${density[0]} latents never fired on the held-out tokens.`))] : []), ...(layers.length ? [part("Layers", byLayer(layers))] : []))),
    latents(data.latents[label]),
    part("Config", ...(own.length ? [h("p", { class: "quiet" }, "In this it differs from other members:"), pairs(own, "config")] : []),
      h("details", {}, h("summary", {}, `${common.length} keys that all members share`), pairs(common, "config"))),
    ...(Object.keys(made).length ? [part("How it came to be", pairs(Object.entries(made), "config"))] : []),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  chart?.draw();
  history.replaceState(null, "", `#member=${encodeURIComponent(label)}`);
};

if (dialog) {
  dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  const asked = decodeURIComponent(location.hash.replace(/^#member=/, ""));
  if (pointOf.has(asked)) setTimeout(() => openMember(asked));
}
