// An image as it is looked at: a curve, a picture, or three linked slices of a volume, with a cross-hair, boxes and heat.
//
// Python cuts and shades the slices. Voxel i reaches from i to i + 1 in the coordinates of the overlay.

import { Refusal, ask, askPicture } from "./call.js";
import { html, svg, tell } from "./element.js";

const SIGNAL = 200;

/** One plane of an image. */
class Panel {
  constructor(slices, plane) {
    Object.assign(this, { slices, plane });
    const { size } = slices.image;
    [this.rows, this.columns] = plane.axes.map((axis) => size[axis]);
    this.canvas = html("canvas", { width: this.columns, height: this.rows });
    this.heat = html("canvas", { width: this.columns, height: this.rows, class: "heat" });
    this.overlay = svg("svg", { viewBox: `0 0 ${this.columns} ${this.rows}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    const marks = plane.marks.map((mark, index) => html("span", { class: `mark m${index}`, "aria-hidden": "true" }, mark));
    this.place = html("div", { class: "slice-image", tabindex: "0", role: "group", "data-plane": plane.name }, this.canvas, this.heat, this.overlay, marks);
    const [tall, wide] = [this.rows * plane.spacing[0], this.columns * plane.spacing[1]];
    this.place.style.aspectRatio = `${wide} / ${tall}`;
    this.place.style.maxWidth = `calc(min(62vh, 640px) * ${wide / tall})`;
    this.caption = html("figcaption", {}, html("b", {}, plane.name));
    this.element = html("figure", { class: "slice" }, this.caption, this.place);
    if (plane.across !== null) this.addSlider(size[plane.across]);
    this.bind();
  }

  addSlider(count) {
    this.slider = html("input", { type: "range", min: 0, max: count - 1, "aria-label": `${this.plane.name} slice`, input: () => this.slices.moveTo(this.plane.across, Number(this.slider.value)) });
    this.number = html("output", { class: "small" });
    this.element.append(html("div", { class: "slice-bar" }, this.slider, this.number));
  }

  bind() {
    const go = (event) => {
      const voxel = this.at(event);
      if (voxel) this.slices.choose(voxel);
    };
    this.place.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.place.setPointerCapture(event.pointerId);
      this.dragged = event.shiftKey ? [event.clientX, event.clientY] : null;
      if (!event.shiftKey) go(event);
    });
    this.place.addEventListener("pointermove", (event) => {
      if (!(event.buttons & 1)) return;
      if (!this.dragged) return go(event);
      this.slices.shiftWindow(event.clientX - this.dragged[0], event.clientY - this.dragged[1]);
      this.dragged = [event.clientX, event.clientY];
    });
    this.place.addEventListener("wheel", (event) => {
      if (this.plane.across === null) return;
      event.preventDefault();
      this.slices.moveBy(this.plane.across, event.deltaY > 0 ? 1 : -1);
    }, { passive: false });
    this.place.addEventListener("keydown", (event) => this.key(event));
  }

  /** Arrow keys move the cross-hair in the picture's directions, page keys from slice to slice. */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 10 : 1;
    const along = (index, by) => this.slices.moveBy(this.plane.axes[index], this.plane.reversed[index] ? -by : by);
    const moves = { ArrowUp: () => along(0, -step), ArrowDown: () => along(0, step), ArrowLeft: () => along(1, -step), ArrowRight: () => along(1, step) };
    if (this.plane.across !== null) Object.assign(moves, { PageUp: () => this.slices.moveBy(this.plane.across, step), PageDown: () => this.slices.moveBy(this.plane.across, -step) });
    if (!moves[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    moves[event.key]();
  }

  /** The voxel under the pointer. */
  at(event) {
    const box = this.place.getBoundingClientRect();
    const shares = [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width];
    const voxel = [...this.slices.voxel];
    this.plane.axes.forEach((axis, index) => {
      const count = this.slices.image.size[axis];
      const seen = Math.min(count - 1, Math.max(0, Math.floor(shares[index] * count)));
      voxel[axis] = this.plane.reversed[index] ? count - 1 - seen : seen;
    });
    return voxel;
  }

  index() {
    return this.plane.across === null ? 0 : this.slices.voxel[this.plane.across];
  }

  words() {
    return [["image", this.slices.image.image], ["plane", this.plane.name], ["index", this.index()], ["channel", this.slices.channel]];
  }

  async paint() {
    const key = JSON.stringify([this.words(), this.slices.window]);
    if (this.painted === key) return;
    this.painted = key;
    const [low, high] = this.slices.window;
    const picture = await askPicture("image/slice", [...this.words(), ["low", low], ["high", high]], `slice ${this.plane.name}`);
    if (!picture) return;
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
  }

  /** Paint the heat of a question; none without one. */
  async paintHeat(question) {
    const context = this.heat.getContext("2d");
    if (!question) {
      this.heated = null;
      return context.clearRect(0, 0, this.columns, this.rows);
    }
    const key = JSON.stringify([question, this.index()]);
    if (this.heated === key) return;
    this.heated = key;
    const picture = await askPicture(question.name, [...question.words, ["plane", this.plane.name], ["index", this.index()]], `heat ${this.plane.name}`);
    if (!picture || this.heated !== key) return;
    context.clearRect(0, 0, this.columns, this.rows);
    context.globalCompositeOperation = "source-over";
    context.drawImage(picture, 0, 0);
    if (question.plain) return;
    // The picture says how much it covers; the colour is that of the theme.
    context.globalCompositeOperation = "source-in";
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--heat");
    context.fillRect(0, 0, this.columns, this.rows);
    context.globalCompositeOperation = "source-over";
  }

  /** From coordinates of the stored axes to those of the overlay: [row, column]. */
  turn(coordinates) {
    return this.plane.axes.map((axis, index) => (this.plane.reversed[index] ? this.slices.image.size[axis] - coordinates[axis] : coordinates[axis]));
  }

  drawOverlay() {
    const { voxel, boxes, dots } = this.slices;
    const middle = voxel.map((place) => place + 0.5);
    const [y, x] = this.turn(middle);
    const shapes = [svg("path", { class: "hair", d: `M0 ${y}H${this.columns}M${x} 0V${this.rows}` })];
    for (const box of boxes) shapes.push(this.box(box));
    if (dots && dots.every((each, axis) => this.plane.axes.includes(axis) ? each.length <= 40 : true)) shapes.push(this.dots(dots));
    this.overlay.replaceChildren(...shapes);
    this.slider && (this.slider.value = this.index());
    this.number && (this.number.textContent = `${this.index()} of ${this.slices.image.size[this.plane.across] - 1}`);
    const where = this.plane.across === null ? "" : `, slice ${this.index()}`;
    this.place.setAttribute("aria-label", `${this.plane.name}${where}. Arrow keys move the cross-hair${this.plane.across === null ? "" : ", page keys the slice"}.`);
  }

  /** A box with edges in voxels, where a voxel reaches half to each side; sides outside of the image stay open. */
  box({ edges, name }) {
    const ends = this.plane.axes.map((axis, index) => {
      const size = this.slices.image.size[axis];
      const found = edges[axis].map((edge) => edge + 0.5);
      return this.plane.reversed[index] ? [size - found[1], size - found[0]] : found;
    });
    const across = this.plane.across;
    const here = across === null || (edges[across][0] <= this.index() && this.index() <= edges[across][1]);
    const [[y0, y1], [x0, x1]] = ends;
    const [top, bottom, left, right] = [Math.max(y0, 0), Math.min(y1, this.rows), Math.max(x0, 0), Math.min(x1, this.columns)];
    const lines = [];
    if (y0 >= 0) lines.push(`M${left} ${top}H${right}`);
    if (y1 <= this.rows) lines.push(`M${left} ${bottom}H${right}`);
    if (x0 >= 0) lines.push(`M${left} ${top}V${bottom}`);
    if (x1 <= this.columns) lines.push(`M${right} ${top}V${bottom}`);
    const data = { "data-box": name, "data-edges": [y0, y1, x0, x1].join(",") };
    return svg("g", { class: `box ${name}${here ? "" : " away"}`, ...data }, svg("rect", { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) }), svg("path", { d: lines.join("") || "M0 0" }));
  }

  dots(dots) {
    const points = [];
    const [rows, columns] = this.plane.axes.map((axis, index) => dots[axis].map((place) => {
      const at = place + 0.5;
      return this.plane.reversed[index] ? this.slices.image.size[axis] - at : at;
    }));
    for (const y of rows) for (const x of columns) points.push(`M${x} ${y}h0`);
    return svg("path", { class: "dots", d: points.join("") });
  }
}

/** A signal. */
class Curve {
  constructor(slices) {
    this.slices = slices;
    const count = slices.image.size[0];
    this.overlay = svg("svg", { viewBox: `0 0 ${count} ${SIGNAL}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.place = html("div", { class: "slice-image curve", tabindex: "0", role: "group", "aria-label": "signal. Arrow keys move the cross-hair." }, this.overlay);
    this.element = html("figure", { class: "slice" }, this.place);
    const go = (event) => {
      const box = this.place.getBoundingClientRect();
      slices.choose([Math.min(count - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * count)))]);
    };
    this.place.addEventListener("pointerdown", go);
    this.place.addEventListener("pointermove", (event) => event.buttons & 1 && go(event));
    this.place.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      slices.moveBy(0, event.shiftKey ? 10 * by : by);
    });
  }

  async paint() {
    this.found ??= await ask("image/curve", [["image", this.slices.image.image], ["channel", this.slices.channel]], "curve");
    this.drawOverlay();
  }

  paintHeat(question) {
    this.heat = question?.curve ?? null;
    this.drawOverlay();
  }

  drawOverlay() {
    const { voxel, boxes, image, dots } = this.slices;
    const [low, high] = image.ends;
    const level = (value) => SIGNAL - 8 - ((value - low) / (high - low || 1)) * (SIGNAL - 16);
    const shapes = [];
    if (this.heat) shapes.push(svg("path", { class: "heat-area", d: area(this.heat, (value) => SIGNAL - value * (SIGNAL - 16)) }));
    for (const { edges, name } of boxes) {
      const [x0, x1] = edges[0].map((edge) => edge + 0.5);
      const [left, right] = [Math.max(x0, 0), Math.min(x1, image.size[0])];
      const lines = [x0 >= 0 ? `M${left} 0V${SIGNAL}` : "", x1 <= image.size[0] ? `M${right} 0V${SIGNAL}` : ""].join("");
      shapes.push(svg("g", { class: `box ${name}`, "data-box": name, "data-edges": `${x0},${x1}` }, svg("rect", { x: left, y: 0, width: Math.max(0, right - left), height: SIGNAL }), svg("path", { d: lines || "M0 0" })));
    }
    if (this.found) {
      const line = this.found.starts.map((start, index) => `${index ? "L" : "M"}${start + 0.5} ${level(this.found.largest[index])}L${start + 0.5} ${level(this.found.least[index])}`).join("");
      shapes.push(svg("path", { class: "signal", d: line }));
    }
    if (dots && dots[0].length <= 200) shapes.push(svg("path", { class: "dots", d: dots[0].map((place) => `M${place + 0.5} ${SIGNAL - 6}h0`).join("") }));
    shapes.push(svg("path", { class: "hair", d: `M${voxel[0] + 0.5} 0V${SIGNAL}` }));
    this.overlay.replaceChildren(...shapes);
  }
}

function area({ starts, largest }, level) {
  if (!starts.length) return "M0 0";
  const steps = starts.map((start, index) => `L${start} ${level(largest[index])}L${starts[index + 1] ?? start + 1} ${level(largest[index])}`);
  return `M${starts[0]} ${level(0)}${steps.join("")}V${level(0)}Z`;
}

export class Slices {
  /** onVoxel(voxel): the cross-hair was moved; onWindow([low, high]): the window was dragged. */
  constructor(place, { onVoxel = () => {}, onWindow = () => {} } = {}) {
    Object.assign(this, { place, onVoxel, onWindow, boxes: [], dots: null, channel: 0, panels: [], image: null });
  }

  /** Show an image, once Python has opened it; while it is being decoded `tellProgress` gets the share. */
  async open(word, tellProgress = () => {}) {
    let done = false;
    const poll = async () => {
      while (!done) {
        await new Promise((resolve) => setTimeout(resolve, 350));
        if (done) break;
        const found = await ask("image/progress", [["image", word]]).catch(() => null);
        if (!done && found?.text) tellProgress(found);
      }
      tellProgress(null);
    };
    poll();
    try {
      const image = await ask("image/describe", [["image", word]]);
      if (image) this.show(image);
      return image;
    } finally {
      done = true;
    }
  }

  show(image) {
    this.image = image;
    this.window = [...image.window];
    this.channel = 0;
    this.voxel = image.size.map((count) => Math.floor(count / 2));
    this.boxes = [];
    this.dots = null;
    this.panels = image.size.length === 1 ? [new Curve(this)] : image.planes.map((plane) => new Panel(this, plane));
    this.place.classList.toggle("three", this.panels.length === 3);
    this.place.replaceChildren(...this.panels.map((panel) => panel.element));
  }

  choose(voxel) {
    if (voxel.join() === this.voxel.join()) return;
    this.set({ voxel });
    this.onVoxel(voxel);
  }

  moveTo(axis, place) {
    const voxel = [...this.voxel];
    voxel[axis] = Math.min(this.image.size[axis] - 1, Math.max(0, place));
    this.choose(voxel);
  }

  moveBy(axis, by) {
    this.moveTo(axis, this.voxel[axis] + by);
  }

  shiftWindow(wider, darker) {
    const [low, high] = this.window;
    const unit = (this.image.ends[1] - this.image.ends[0]) / 400;
    const [middle, half] = [(low + high) / 2 + darker * unit, Math.max((high - low) / 2 + (wider * unit) / 2, unit)];
    this.set({ window: [middle - half, middle + half] });
    this.onWindow(this.window);
  }

  /** Change what is shown: voxel, window, channel, boxes [{ name, edges }], dots, heat (a question or null). */
  set(changes) {
    Object.assign(this, changes);
    if (!this.image) return;
    for (const panel of this.panels) {
      panel.drawOverlay();
      this.guard(panel.paint());
      this.guard(panel.paintHeat(this.heat));
    }
  }

  repaint() {
    this.panels.forEach((panel) => (panel.heated = null));
    this.set({});
  }

  async guard(painted) {
    try {
      await painted;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      tell(error.message);
    }
  }
}
