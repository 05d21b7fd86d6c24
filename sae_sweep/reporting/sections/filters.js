// A menu for each axis in which members differ; a click on a value shows or hides it, a double click shows it alone.
const bar = document.querySelector(".filters");

function menu(key) {
  const summary = h("summary"), list = h("div", { class: "values" });
  const boxes = valuesOf(key).map(value => {
    const box = h("input", { type: "checkbox", "data-value": valueKey(value), onchange: () => toggle(key, value) });
    const alone = h("button", { type: "button", title: "show this alone", onclick: () => only(key, value) }, "only");
    list.append(h("div", {}, h("label", {}, box, " ", short(value)), alone));
    return box;
  });
  list.append(h("button", { type: "button", class: "every", onclick: () => setHidden(key, []) }, "all"));
  const refresh = () => {
    const hidden = hiddenOn.get(key);
    for (const box of boxes) box.checked = !hidden.has(box.dataset.value);
    const left = boxes.length - hidden.size;
    summary.replaceChildren(axes.titles[key], h("span", {}, hidden.size ? `${left} of ${boxes.length}` : `all ${boxes.length}`));
    summary.classList.toggle("on", hidden.size > 0);
  };
  onChange(refresh);
  refresh();
  return h("details", { "data-axis": key }, summary, list);
}

if (bar) {
  const menus = Object.keys(axes.titles).map(menu), told = h("output"), all = h("button", { type: "button", class: "every", onclick: showAll }, "show all");
  const refresh = () => {
    const shown = points.filter(isShown).length;
    told.textContent = shown === points.length ? `${shown} members` : `${shown} of ${points.length} members`;
    all.hidden = shown === points.length;
  };
  bar.append(...(menus.length ? [h("span", { class: "quiet" }, "Show")] : []), ...menus, told, all);
  onChange(refresh);
  refresh();
  const close = except => menus.forEach(one => { if (one !== except) one.open = false; });
  document.addEventListener("click", event => close(event.target.closest?.(".filters details")));
  document.addEventListener("keydown", event => { if (event.key === "Escape") close(null); });
}
