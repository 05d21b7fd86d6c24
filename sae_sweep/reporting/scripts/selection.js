// Which members are shown: those of which no value on any axis is hidden. Charts, tables and curves follow it together.
const hiddenOn = new Map(Object.keys(axes.titles).map(key => [key, new Set()]));
const listeners = [];
const onChange = listener => listeners.push(listener);
const valueKey = value => JSON.stringify(value ?? null);
const isShown = point => [...hiddenOn].every(([key, hidden]) => hidden.size === 0 || !hidden.has(valueKey(axisOf(point, key))));
const shownOf = cell => cell.points.filter(isShown);

// The values of an axis: numbers by size, then words.
function valuesOf(key, some = points) {
  const found = [...new Map(some.map(point => axisOf(point, key)).map(value => [valueKey(value), value])).values()];
  const rank = value => value === null ? 2 : typeof value === "number" ? 0 : 1;
  return found.sort((a, b) => rank(a) - rank(b) || (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true })));
}

function setHidden(key, values) {
  hiddenOn.set(key, new Set(values.map(valueKey)));
  listeners.forEach(listener => listener());
}

function toggle(key, value) {
  const hidden = hiddenOn.get(key), all = valuesOf(key);
  const next = all.filter(other => hidden.has(valueKey(other)) !== (valueKey(other) === valueKey(value)));
  setHidden(key, next.length === all.length ? [] : next); // nothing shown is no choice
}

const only = (key, value) => setHidden(key, valuesOf(key).filter(other => valueKey(other) !== valueKey(value)));

function showAll() {
  for (const key of hiddenOn.keys()) hiddenOn.set(key, new Set());
  listeners.forEach(listener => listener());
}
