// What does not fit: text beyond the page, or clipped; texts over each other; what a chart writes beyond its box.
() => {
  const found = [], seen = e => e.checkVisibility() && e.getClientRects().length > 0;
  const own = e => [...e.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  const paper = document.documentElement.classList.contains("printing"); // where nothing scrolls
  const scrolls = e => e.closest(paper ? "select, dialog" : ".scroll, .legend, .values, select, nav, dialog");
  const say = (what, e) => found.push(`${what}: ${(e.textContent || e.tagName).trim().slice(0, 60)}`);
  const leaves = [...document.querySelectorAll("main *")].filter(e => own(e) && seen(e) && !scrolls(e) && !e.closest("svg"));
  const box = e => e.getBoundingClientRect();
  for (const e of leaves) {
    const { left, right } = box(e);
    if (left < -1 || right > document.documentElement.clientWidth + 1) say("beyond", e);
    if (getComputedStyle(e).overflowX !== "visible" && e.scrollWidth > e.clientWidth + 1) say("clipped", e);
  }
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
  const apart = (some, what) => some.forEach((one, i) => some.slice(i + 1).forEach(other => {
    if (!one.contains(other) && !other.contains(one) && over(box(one), box(other))) say(`${what} over ${other.textContent.trim().slice(0, 30)}`, one);
  }));
  apart(leaves, "text");
  for (const chart of document.querySelectorAll(".js-plotly-plot")) {
    const edge = box(chart), texts = [...chart.querySelectorAll("svg.main-svg text")].filter(e => e.textContent.trim() && box(e).width);
    for (const text of texts)
      if (box(text).left < edge.left - 1 || box(text).right > edge.right + 1 || box(text).top < edge.top - 1 || box(text).bottom > edge.bottom + 1) say("outside its chart", text);
    apart(texts, "chart text");
  }
  return found;
}
