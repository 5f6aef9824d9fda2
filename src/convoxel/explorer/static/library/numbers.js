// Small arrays as grids of numbers, shaded by their size.

import { html } from "./element.js";

export const spelled = (value, digits = 3) => (value === null ? "–" : Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(digits)))).replace("-", "−");

function extremes(values) {
  const flat = values.flat(Infinity).filter((value) => value !== null);
  return Math.max(...flat.map(Math.abs), 1e-12);
}

/** A figure of an array of one to three axes; `picked(position)` marks cells, slices of a volume stand below each other. */
export function grid(name, values, { picked = () => false, digits = 3, most = extremes(values) } = {}) {
  const slices = !Array.isArray(values[0]) ? [[values]] : !Array.isArray(values[0][0]) ? [values] : values;
  const axes = !Array.isArray(values[0]) ? 1 : !Array.isArray(values[0][0]) ? 2 : 3;
  const cell = (value, at) => {
    const share = value === null ? 0 : Math.min(1, Math.abs(value) / most);
    const shade = `color-mix(in srgb, var(${value < 0 ? "--c5" : "--c3"}) ${Math.round(share * 55)}%, var(--code))`;
    const found = html("td", { class: `${picked(at) ? "pick" : ""} ${value === 0 ? "zero" : ""}` }, spelled(value, digits));
    found.style.background = shade;
    return found;
  };
  const tables = slices.map((rows, slice) => html("table", { class: "numbers" }, html("tbody", {}, rows.map((row, y) => html("tr", {}, row.map((value, x) => cell(value, [slice, y, x].slice(3 - axes))))))));
  return html("figure", {}, html("figcaption", {}, name), tables);
}
