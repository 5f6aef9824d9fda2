// An image with its label, what a network finds in it and where they differ, laid over each other.

import { Refusal, ask } from "./call.js";
import { html, tell } from "./element.js";
import { spelled } from "./numbers.js";

const LAYERS = ["image", "label", "prediction", "difference"];

/** The pictures of one slice over each other; labels and the like are transparent. */
export function layersOf(drawn, words) {
  const there = LAYERS.filter((name) => drawn[name]);
  const pictures = there.map((name) => html("img", { src: drawn[name], width: drawn.width, height: drawn.height, alt: name === "image" ? words : "", "data-layer": name }));
  const marks = (drawn.marks ?? []).map((letter, index) => html("span", { class: `mark ${"tblr"[index]}`, "aria-hidden": "true" }, letter));
  const element = html("span", { class: "layers" }, pictures, marks);
  const hidden = element.querySelector('[data-layer="difference"]');
  if (hidden) hidden.style.opacity = 0;
  const label = element.querySelector('[data-layer="label"]');
  if (label) label.style.opacity = 0;
  return element;
}

/** Names of the colours. */
export function legendOf(entries) {
  return html("ul", { class: "legend" }, entries.map(([role, words]) => {
    const colour = html("i", {});
    colour.style.backgroundColor = `var(--${role})`;
    return html("li", {}, colour, words);
  }));
}

export class CaseViewer {
  /** run: its folder; onStep(1 or −1) asks for the next or previous image. */
  constructor(state, run, onStep) {
    Object.assign(this, { state, run, onStep, found: null });
    const box = (name, text) => html("label", { class: "small switch" }, html("input", { type: "checkbox", "data-layer": name, change: (event) => state.set({ [name]: event.target.checked ? "1" : "0" }) }), ` ${text}`);
    this.boxes = html("span", {}, box("label", "label "), box("prediction", "prediction "), box("difference", "differences "));
    this.opacity = html("input", { type: "range", min: 0, max: 100, "aria-label": "opacity", input: () => state.set({ opacity: this.opacity.value }) });
    this.plane = html("select", { "aria-label": "plane", change: () => state.set({ plane: this.plane.value, slice: "" }) });
    this.slider = html("input", { type: "range", min: 0, "aria-label": "slice", input: () => state.set({ slice: this.slider.value }) });
    this.number = html("output", {});
    this.worstButton = html("button", { type: "button", title: "The slice with the most mistakes (w)", click: () => this.worst() }, "worst slice");
    this.channel = html("input", { type: "range", min: 0, "aria-label": "channel", input: () => state.set({ channel: this.channel.value }) });
    const range = (label) => html("input", { type: "range", step: "any", "aria-label": label, input: () => this.setWindow() });
    [this.level, this.width] = [range("level"), range("width")];
    this.grey = html("output", {});
    this.usual = html("button", { type: "button", title: "The usual window (0)", click: () => this.usualWindow() }, "usual window");
    this.windows = html("div", { class: "bar", hidden: true }, html("label", { class: "small" }, "level ", this.level), html("label", { class: "small" }, "width ", this.width), this.grey, this.usual);
    this.slices = html("div", { class: "bar", hidden: true }, this.plane, this.slider, this.number, this.worstButton);
    this.channels = html("label", { class: "small", hidden: true }, "channel ", this.channel);
    const step = (text, label, by) => html("button", { type: "button", "aria-label": label, title: label, click: () => onStep(by) }, text);
    this.bar = html("div", { class: "bar", hidden: true }, step("‹", "previous image (p)", -1), step("›", "next image (n)", 1), this.boxes, html("label", { class: "small" }, "opacity ", this.opacity), this.channels);
    this.title = html("p", { class: "lead" });
    this.stage = html("div", { class: "slice" });
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.legend = html("div", {});
    this.element = html("div", { class: "case", role: "group", "aria-label": "image" }, this.title, this.bar, this.slices, this.windows, this.stage, this.legend);
  }

  async show() {
    const name = this.state.get("case");
    this.showLayers();
    if (!name || name === this.name) return;
    this.name = name;
    this.found = null;
    this.title.textContent = `${name}: the network looks at it …`;
    try {
      const found = await ask("runs/case", [["run", this.run], ["case", name]], "case");
      if (!found) return;
      this.found = found;
      this.title.textContent = [found.name, found.shape, found.words].filter(Boolean).join(" · ");
      this.bar.hidden = false;
      this.boxes.hidden = !found.legend.length;
      this.opacity.parentElement.hidden = !found.legend.length;
      this.channels.hidden = found.channels < 2 || found.channels === 3 && !found.planes.length;
      this.channel.max = found.channels - 1;
      this.slices.hidden = !found.planes.length;
      this.plane.replaceChildren(...found.planes.map(({ name: each }) => html("option", { value: each }, each)));
      this.legend.replaceChildren(legendOf(found.legend));
      this.windows.hidden = !found.ends;
      await this.showSlice();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.stage.replaceChildren();
      this.title.textContent = error.message;
    }
  }

  place() {
    return this.found?.planes.find(({ name }) => name === this.state.get("plane")) ?? this.found?.planes[0];
  }

  index() {
    const place = this.place();
    const asked = this.state.get("slice");
    return place ? (asked === "" ? place.worst : Math.min(Number(asked), place.count - 1)) : null;
  }

  async showSlice() {
    if (!this.found) return;
    const place = this.place();
    const index = this.index();
    if (place) {
      this.plane.value = place.name;
      this.slider.max = place.count - 1;
      this.slider.value = index;
      this.number.textContent = `slice ${index} of ${place.count}`;
    }
    this.channel.value = this.state.get("channel");
    this.showWindow();
    const asked = ["low", "high"].map((name) => [name, this.state.get(name)]).filter(([, text]) => text);
    const words = [["run", this.run], ["case", this.name], ["channel", this.state.get("channel")], ...(place ? [["plane", place.name], ["slice", index]] : []), ...asked];
    const drawn = await ask("runs/slice", words, "slice");
    if (!drawn) return;
    this.stage.replaceChildren(layersOf(drawn, `${this.name}${place ? `, ${place.name} slice ${index}` : ""}`));
    this.showLayers();
  }

  /** Level and width as a radiologist says it: the middle of the window, and the distance from black to white. */
  showWindow() {
    if (!this.found.ends) return;
    const [least, largest] = this.found.ends;
    const [low, high] = ["low", "high"].map((name, end) => Number(this.state.get(name) || this.found.window[end]));
    Object.assign(this.level, { min: least, max: largest });
    Object.assign(this.width, { min: 0, max: 2 * (largest - least) });
    for (const [slider, value] of [[this.level, (low + high) / 2], [this.width, high - low]]) if (document.activeElement !== slider) slider.value = value;
    this.grey.textContent = `black ${spelled(low)}, white ${spelled(high)}`;
    this.usual.disabled = !this.state.get("low") && !this.state.get("high");
  }

  usualWindow() {
    this.state.set({ low: "", high: "" });
  }

  setWindow() {
    const [level, width] = [Number(this.level.value), Number(this.width.value)];
    this.state.set({ low: String(level - width / 2), high: String(level + width / 2) });
  }

  showLayers() {
    const opacity = Number(this.state.get("opacity")) / 100;
    this.opacity.value = this.state.get("opacity");
    this.boxes.querySelectorAll("input").forEach((input) => (input.checked = this.state.get(input.dataset.layer) === "1"));
    this.stage.querySelectorAll("[data-layer]").forEach((picture) => {
      const name = picture.dataset.layer;
      if (name !== "image") picture.style.opacity = this.state.get(name) === "1" ? opacity : 0;
    });
  }

  wheel(event) {
    if (!this.place() || event.ctrlKey) return;
    event.preventDefault();
    this.move(Math.sign(event.deltaY));
  }

  move(by) {
    const place = this.place();
    if (!place) return;
    const index = Math.min(place.count - 1, Math.max(0, this.index() + by));
    this.state.set({ slice: index });
    tell(`slice ${index}`);
  }

  worst() {
    this.state.set({ slice: "" });
  }

  changed(names) {
    if (names.has("case")) this.show();
    if (["plane", "slice", "channel", "low", "high"].some((name) => names.has(name))) this.showSlice().catch((error) => { if (!(error instanceof Refusal)) throw error; });
    if (["label", "prediction", "difference", "opacity"].some((name) => names.has(name))) this.showLayers();
  }
}
