// The matrix of a layer on a canvas: entries in the colour of their weight, blocks, and the row or column that is chosen.

import { byId, html } from "./element.js";

const WIDE = 620;
const NAMED = 7;

export class Matrix {
  constructor(place, onChoose) {
    Object.assign(this, { place, onChoose, found: null, chosen: null });
    this.canvas = html("canvas", { tabindex: "-1", role: "img", "aria-label": "matrix" });
    this.canvas.addEventListener("click", (event) => this.click(event));
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
  }

  clear() {
    this.found = null;
    this.place.replaceChildren();
    byId("entry").textContent = "";
  }

  draw(found, layer, transposed) {
    Object.assign(this, { found, layer, transposed });
    this.at = new Map(found.entries.map(([row, column, weight]) => [`${row},${column}`, weight]));
    const [rows, columns] = transposed ? [found.columns, found.rows] : [found.rows, found.columns];
    const room = Math.max(240, Math.min(WIDE, this.place.clientWidth || WIDE));
    this.cell = Math.max(2, Math.min(26, room / columns, 560 / rows));
    this.canvas.setAttribute("aria-label", `${transposed ? "transposed " : ""}matrix, ${found.text}`);
    this.canvas.style.width = `${columns * this.cell}px`;
    this.canvas.style.height = `${rows * this.cell}px`;
    const scale = Math.min(devicePixelRatio || 1, 8000 / Math.max(rows, columns) / this.cell);
    this.canvas.width = Math.round(columns * this.cell * scale);
    this.canvas.height = Math.round(rows * this.cell * scale);
    this.scale = scale;
    this.place.replaceChildren(this.canvas);
    this.paint();
  }

  choose(chosen) {
    this.chosen = chosen;
    this.paint();
  }

  paint() {
    if (!this.found) return;
    const { found, cell, transposed } = this;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const pen = this.canvas.getContext("2d");
    pen.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    pen.fillStyle = colour("grid");
    pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const side = cell - (cell >= 8 ? 1.5 : 0);
    const ramp = Array.from({ length: 16 }, (_, index) => colour(`ramp${index}`));
    const label = cell >= 18;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.font = `${Math.round(cell * 0.42)}px system-ui, sans-serif`;
    for (const [row, column, weight] of found.entries) {
      const [x, y] = transposed ? [row * cell, column * cell] : [column * cell, row * cell];
      const few = found.weights <= NAMED;
      const step = Math.round((weight * 15) / Math.max(found.weights - 1, 1));
      pen.fillStyle = few ? colour(`c${weight + 1}`) : ramp[step];
      pen.fillRect(x, y, side, side);
      if (label) {
        pen.fillStyle = few ? colour(`on-c${weight + 1}`) : colour(`on-ramp${step}`);
        pen.fillText(found.letter ? `${found.letter}${weight + 1}` : found.share ? `1/${found.share}` : "", x + side / 2, y + side / 2);
      }
    }
    this.lines(pen, colour);
    this.mark(pen, colour);
  }

  lines(pen, colour) {
    const { found, cell, transposed } = this;
    pen.strokeStyle = colour("soft");
    found.blocks.forEach(([rows, columns], level) => {
      if (rows * cell < 5 || columns * cell < 5) return;
      pen.lineWidth = 0.6 + 0.8 * level;
      pen.globalAlpha = level ? 0.8 : 0.45;
      pen.beginPath();
      const [down, across] = transposed ? [columns, rows] : [rows, columns];
      const [tall, wide] = transposed ? [found.columns, found.rows] : [found.rows, found.columns];
      for (let row = down; row < tall; row += down) {
        pen.moveTo(0, row * cell);
        pen.lineTo(wide * cell, row * cell);
      }
      for (let column = across; column < wide; column += across) {
        pen.moveTo(column * cell, 0);
        pen.lineTo(column * cell, tall * cell);
      }
      pen.stroke();
    });
    pen.globalAlpha = 1;
  }

  /** A frame around the rows of the chosen output, or the columns of the chosen input, one for each channel. */
  mark(pen, colour) {
    if (!this.chosen) return;
    const { found, cell } = this;
    const { output, input } = this.chosen;
    const [at, sizes, count] = output ? [output, found.output, found.rows] : [input, found.size, found.columns];
    if (at.length !== sizes.length) return;
    const [place, period] = [this.flat(at, sizes), sizes.reduce((product, size) => product * size, 1)];
    pen.strokeStyle = colour("ink");
    pen.lineWidth = 2;
    for (let line = place; line < count; line += period) {
      const across = Boolean(output) !== this.transposed;
      const long = (output ? found.columns : found.rows) * cell;
      if (across) pen.strokeRect(1, line * cell, long - 2, cell);
      else pen.strokeRect(line * cell, 1, cell, long - 2);
    }
  }

  flat(at, sizes) {
    const pairs = at.map((place, axis) => [place, sizes[axis]]);
    return (this.found.order === "C" ? pairs : pairs.reverse()).reduce((sum, [place, size]) => sum * size + place, 0);
  }

  unflat(number, sizes) {
    const order = this.found.order === "C" ? [...sizes].reverse() : [...sizes];
    const found = [];
    let rest = number % sizes.reduce((product, size) => product * size, 1);
    for (const size of order) {
      found.push(rest % size);
      rest = Math.floor(rest / size);
    }
    return this.found.order === "C" ? found.reverse() : found;
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top].map((length) => Math.floor(length / this.cell));
    return this.transposed ? [x, y] : [y, x];
  }

  click(event) {
    const [row, column] = this.under(event);
    // A second click on the row asks for the column.
    const output = this.unflat(row, this.found.output);
    const same = this.chosen?.output?.join() === output.join();
    this.onChoose(same ? { input: this.unflat(column, this.found.size) } : { output });
  }

  hover(event) {
    const [row, column] = this.under(event);
    if (row < 0 || column < 0 || row >= this.found.rows || column >= this.found.columns) return;
    const weight = this.at.get(`${row},${column}`);
    const [y, x] = [this.unflat(row, this.found.output), this.unflat(column, this.found.size)];
    const worth = weight === undefined ? "0" : this.layer.kind === "average_pool" ? "the share of one input" : `k${weight + 1}`;
    byId("entry").textContent = `row ${row + 1} (y[${y.join(", ")}]), column ${column + 1} (x[${x.join(", ")}]): ${worth}`;
  }
}
