"use strict";
// What the page carries, and how numbers and names are written. What is static (headings, the table) is already there.
const { cells, choices, metrics, axes, sections } = JSON.parse(document.getElementById("data").textContent);
for (const key of Object.keys(metrics)) metrics[key].key = key;

const points = cells.flatMap(cell => cell.points);
const pointOf = new Map(points.map(point => [point.member, point]));
const axisOf = (point, key) => axes.of[point.member][key] ?? null;
let openMember = () => {}; // shows a member's page; its section says how

const number = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
const short = value => value === null || value === undefined ? "–" : typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value);
const escaped = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");
const told = (point, metric) => {
  const [value, error] = [point[metric.key], metric.error ? point[metric.error] : null];
  const scaled = number => number === null || number === undefined ? null : number * metric.scale;
  return `${metric.title} ${number(scaled(value), metric.digits)}` + (error === null || error === undefined ? "" : ` ±${number(scaled(error), metric.digits)}`);
};

// An element with attributes and children; text is only ever text.
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined));
  return element;
}

// A point's numbers: those with an error have a line of their own, others share one.
function hover(cell, point) {
  const own = ["l0", ...choices[cells.indexOf(cell)]].map(key => metrics[key]).filter(metric => point[metric.key] !== null);
  const alone = own.filter(metric => metric.error), shared = own.filter(metric => !metric.error).map(metric => told(point, metric));
  return [
    `<b>${escaped(point.member)}</b>`,
    `${escaped(point.architecture)} · ${point.knob}=${short(point.knob_value)} · width ${short(point.width)}`,
    `lr ${short(point.lr)} · seed ${short(point.seed)}`,
    ...alone.map(metric => told(point, metric)),
    ...shared.filter((_, index) => index % 2 === 0).map((text, index) => [text, ...shared.slice(2 * index + 1, 2 * index + 2)].join(" · ")),
  ].join("<br>");
}
