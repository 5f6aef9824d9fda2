// The picture of a layer: input, kernel and output as grids of cells, and what the chosen output or input is linked to.
//
// Python says for each axis what every output reads. Along several axes an output reads all combinations of that.

import { html, svg } from "./element.js";

const GAP = 3;
const SLICE = 14;
const TOP = 22;

export class Stage {
  constructor(place, onOutput, onInput) {
    Object.assign(this, { place, onOutput, onInput, layer: null });
  }

  draw(layer) {
    this.layer = layer;
    if (!layer.drawn) return this.place.replaceChildren(html("p", { class: "soft" }, layer.reason));
    this.lit = [];
    this.inverse = layer.axes.map(seen);
    const spans = layer.axes.map((axis) => axis.sources.length);
    const widest = Math.max(spans.at(-1), spans.at(-2) ?? 1, layer.output.at(-1), layer.output.at(-2) ?? 1);
    this.pitch = spans.length === 3 ? (widest <= 8 ? 26 : 16) : widest <= 9 ? 38 : widest <= 14 ? 30 : widest <= 24 ? 20 : 11;
    this.room = Math.max(280, this.place.clientWidth - 14);
    this.first = layer.axes.map((axis) => -Math.max(axis.around[0], 0));
    const input = this.grid("input", layer.size, spans, (at) => this.inputCell(at));
    const kernel = layer.kind.endsWith("pool") ? null : this.grid("kernel", layer.axes.map((a) => a.k), layer.axes.map((a) => a.k), (at) => this.kernelCell(at));
    const output = this.grid("output", layer.output, layer.output, (at) => this.outputCell(at));
    this.cells = { input: input.cells, kernel: kernel?.cells ?? [], output: output.cells };
    this.window = svg("g", {});
    input.group.append(this.window);
    this.place.replaceChildren(this.arrange([input, kernel, output].filter(Boolean), spans.length));
  }

  /** Put grids beside each other, or below each other where they are wide or there is little room. */
  arrange(grids, axes) {
    const gap = 34;
    const wide = grids.reduce((sum, grid) => sum + grid.width + gap, -gap);
    const below = axes !== 2 || wide > this.room;
    let x = 0;
    let y = 0;
    for (const grid of grids) {
      grid.group.setAttribute("transform", `translate(${x} ${y})`);
      if (below) y += grid.height + 12;
      else x += grid.width + gap;
    }
    const width = below ? Math.max(...grids.map((grid) => grid.width)) : wide;
    const height = below ? y - 12 : Math.max(...grids.map((grid) => grid.height));
    return svg("svg", { width: width + 4, height: height + 4, viewBox: `-2 -2 ${width + 4} ${height + 4}`, role: "img", "aria-label": this.layer.sentence }, grids.map((grid) => grid.group));
  }

  grid(name, sizes, spans, cell) {
    const [deep, tall, across] = [...Array(3 - spans.length).fill(1), ...spans];
    // Slices of a volume stand side by side, as many as there is room for.
    const columns = Math.min(deep, Math.max(1, Math.floor((this.room + SLICE) / (across * this.pitch + SLICE))));
    const place = { tall, across, columns };
    if (name === "input") this.canvas = place;
    const cells = [];
    const group = svg("g", { "data-grid": name });
    const title = svg("text", { class: "name", x: 0, y: 12 }, `${name} ${sizes.join(" × ")}`);
    group.append(title);
    for (const at of positions(spans)) {
      const made = cell(at);
      const [x, y] = this.spot(at, place);
      made.box.setAttribute("x", x);
      made.box.setAttribute("y", y);
      made.box.setAttribute("width", this.pitch - GAP);
      made.box.setAttribute("height", this.pitch - GAP);
      made.box.setAttribute("rx", Math.min(4, this.pitch / 6));
      group.append(made.box);
      if (made.text !== undefined && this.pitch >= 16) {
        const text = String(made.text);
        const tiny = text.length > 3 || this.pitch < 24 ? " tiny" : "";
        group.append(svg("text", { class: `value${tiny}`, x: x + (this.pitch - GAP) / 2, y: y + (this.pitch - GAP) / 2 + (tiny ? 3 : 4.2) }, text));
      }
      cells.push(made.box);
    }
    const width = Math.max(columns * (across * this.pitch + SLICE) - SLICE, 8 * title.textContent.length);
    return { group, cells, width, height: TOP + Math.ceil(deep / columns) * (tall * this.pitch + SLICE) - SLICE };
  }

  /** The corner of a cell; a cell may lie outside of the grid, as a window on the padding does. */
  spot(at, { tall, across, columns }) {
    const [slice, row, column] = [...Array(3 - at.length).fill(0), ...at];
    const [down, beside] = [Math.floor(slice / columns), slice % columns];
    return [beside * (across * this.pitch + SLICE) + column * this.pitch, TOP + down * (tall * this.pitch + SLICE) + row * this.pitch];
  }

  inputCell(at) {
    const sources = at.map((place, axis) => this.layer.axes[axis].sources[place]);
    const canvas = at.map((place, axis) => place + this.first[axis]);
    const inside = canvas.every((cell, axis) => cell >= 0 && cell < this.layer.axes[axis].length);
    const real = sources.every((source) => source !== null);
    const kind = real ? (inside ? "" : " copy") : inside ? (this.layer.kind === "transposed" ? " hole" : " cut") : " pad";
    const text = real ? this.value("x", sources, this.layer.size) : inside || !this.layer.values ? undefined : this.layer.kind === "max_pool" ? "" : "0";
    const box = svg("rect", { class: `cell${kind}`, ...(real ? { "data-input": sources.join(","), click: () => this.onInput(sources) } : {}) });
    return { box, text };
  }

  kernelCell(at) {
    const box = svg("rect", { class: "weight", "data-weight": at.join(",") });
    return { box, text: this.value("w", at, this.layer.axes.map((axis) => axis.k)) };
  }

  outputCell(at) {
    const box = svg("rect", { class: "out", "data-output": at.join(","), click: () => this.onOutput(at) });
    return { box, text: this.value("y", at, this.layer.output) };
  }

  value(name, at, sizes) {
    const value = this.layer.values?.[name][flat(at, sizes)];
    return value === undefined ? undefined : spelled(value);
  }

  /** Light up what an output reads, or who reads an input; return it in words. */
  choose({ output, input }) {
    this.lit.forEach(([element, word]) => element.classList.remove(word));
    this.lit = [];
    this.window.replaceChildren();
    return output ? this.chooseOutput(output) : this.chooseInput(input);
  }

  light(element, word) {
    if (!element) return;
    element.classList.add(word);
    this.lit.push([element, word]);
  }

  chooseOutput(output) {
    const { axes, layer } = { axes: this.layer.axes, layer: this.layer };
    const place = flat(output, layer.output);
    this.cells.output.slice(0, place).forEach((cell) => this.light(cell, "done"));
    this.light(this.cells.output[place], "now");
    const spans = axes.map((axis) => axis.sources.length);
    // Every slot of the window lies on a cell of the canvas.
    const starts = axes.map((axis, n) => output[n] * axis.step - axis.around[0] - this.first[n]);
    for (const slot of positions(axes.map((axis) => axis.k))) {
      const at = slot.map((m, n) => starts[n] + m * axes[n].d);
      if (at.every((cell, n) => cell >= 0 && cell < spans[n])) this.light(this.cells.input[flat(at, spans)], "read");
    }
    this.frame(starts, axes.map((axis) => axis.span), spans);
    const reads = combine(axes.map((axis, n) => axis.reads[output[n]]));
    reads.forEach(({ weight }) => this.light(this.cells.kernel[flat(weight, axes.map((axis) => axis.k))], "read"));
    return this.sayOutput(output, reads);
  }

  frame(starts, sizes, spans) {
    const [deepStart, deepSize] = [starts.length === 3 ? starts[0] : 0, starts.length === 3 ? sizes[0] : 1];
    const step = starts.length === 3 ? this.layer.axes[0].d : 1;
    const flatStarts = starts.slice(-2);
    const flatSizes = sizes.slice(-2);
    for (let slice = 0; slice < deepSize; slice += step) {
      const at = starts.length === 3 ? [deepStart + slice, ...flatStarts] : flatStarts;
      if (starts.length === 3 && (at[0] < 0 || at[0] >= spans[0])) continue;
      const [x, y] = this.spot(at, this.canvas);
      const [tall, wide] = flatSizes.length === 1 ? [1, flatSizes[0]] : flatSizes;
      this.window.append(svg("rect", { class: "window", x: x - GAP / 2, y: y - GAP / 2, width: wide * this.pitch, height: tall * this.pitch, rx: 5 }));
    }
  }

  chooseInput(input) {
    const axes = this.layer.axes;
    this.cells.input.forEach((cell) => cell.dataset.input === input.join(",") && this.light(cell, "asked"));
    const seers = combine(axes.map((_, n) => this.inverse[n].get(input[n]) ?? []));
    for (const { weight, source } of seers) {
      this.light(this.cells.output[flat(source, this.layer.output)], "sees");
      this.light(this.cells.kernel[flat(weight, axes.map((axis) => axis.k))], "read");
    }
    const told = seers.slice(0, 12).map(({ weight, source }) => `y${index(source)} through ${this.layer.kind.endsWith("pool") ? "its window" : `k${index(weight)}`}`);
    const count = new Set(seers.map(({ source }) => source.join())).size;
    return [html("b", {}, `x${index(input)}`), ` is read by ${count} output${count === 1 ? "" : "s"}: ${told.join(", ")}${seers.length > 12 ? ", …" : ""}`];
  }

  sayOutput(output, reads) {
    const name = html("b", {}, `y${index(output)}`);
    if (!reads.length) return [name, " reads no input; it is the padding's value alone."];
    const values = this.layer.values;
    const x = (at) => (values ? spelled(values.x[flat(at, this.layer.size)]) : `x${index(at)}`);
    const w = (at) => (values ? spelled(values.w[flat(at, this.layer.axes.map((axis) => axis.k))]) : `k${index(at)}`);
    const shown = reads.slice(0, 16);
    const more = reads.length > shown.length ? ` … (${reads.length} in all)` : "";
    const result = values ? ` = ${spelled(values.y[flat(output, this.layer.output)])}` : "";
    if (this.layer.kind === "max_pool") return [name, ` = max(${shown.map(({ source }) => x(source)).join(", ")}${more})${result}`];
    if (this.layer.kind === "average_pool") return [name, ` = mean of ${shown.map(({ source }) => x(source)).join(", ")}${more}${result}`];
    return [name, ` = ${shown.map(({ weight, source }) => `${x(source)}·${w(weight)}`).join(" + ")}${more}${result}`];
  }

  /** A grid of the outputs that says how many inputs reach each. */
  overlap({ counts, most }) {
    const sizes = this.layer.output;
    const pitch = Math.max(8, Math.min(28, 380 / (sizes.at(-1) + 1)));
    const across = sizes.at(-1);
    const tall = sizes.length > 1 ? sizes.at(-2) : 1;
    const deep = sizes.length > 2 ? sizes[0] : 1;
    const cells = counts.flatMap((count, number) => {
      const [slice, row, column] = [...Array(3 - sizes.length).fill(0), ...position(number, sizes)];
      const [x, y] = [column * pitch, (slice * (tall + 0.6) + row) * pitch];
      const share = most > 1 ? (count - 1) / (most - 1) : 1;
      const box = svg("rect", { x, y, width: pitch - 2, height: pitch - 2, rx: 3, fill: count ? "var(--c3)" : "var(--grid)", "fill-opacity": count ? 0.15 + 0.75 * share : 1, "data-reached": count });
      return pitch >= 16 ? [box, svg("text", { class: "value tiny", x: x + pitch / 2 - 1, y: y + pitch / 2 + 2.5 }, count)] : [box];
    });
    const size = [across * pitch, (deep * (tall + 0.6) - 0.6) * pitch];
    return svg("svg", { width: size[0], height: size[1], viewBox: `0 0 ${size[0]} ${size[1]}`, role: "img", "aria-label": "inputs that reach each output" }, cells);
  }
}

const flat = (at, sizes) => at.reduce((sum, place, axis) => sum * sizes[axis] + place, 0);
const index = (at) => `[${at.join(", ")}]`;
const spelled = (value) => (value === null ? "–" : Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)))).replace("-", "−");

function position(number, sizes) {
  const found = [];
  for (let axis = sizes.length - 1; axis >= 0; axis--) {
    found.unshift(number % sizes[axis]);
    number = Math.floor(number / sizes[axis]);
  }
  return found;
}

function* positions(sizes) {
  const count = sizes.reduce((product, size) => product * size, 1);
  for (let number = 0; number < count; number++) yield position(number, sizes);
}

/** The outputs that read each input along one axis, as pairs of a weight and an output. */
function seen(axis) {
  const found = new Map();
  axis.reads.forEach((reads, output) =>
    reads.forEach(([weight, input]) => found.set(input, [...(found.get(input) ?? []), [weight, output]])));
  return found;
}

/** All combinations of pairs along the axes. */
function combine(lists) {
  let found = [{ weight: [], source: [] }];
  for (const list of lists)
    found = found.flatMap(({ weight, source }) => list.map(([w, s]) => ({ weight: [...weight, w], source: [...source, s] })));
  return found;
}
