// A network as boxes and arrows, whose places Python says: open and close parts, choose, search, heat.

import { html, svg } from "./element.js";
import { PanZoom } from "./pan_zoom.js";

const KINDS = { convolution: "c7", transposed_convolution: "c1", max_pool: "c3", average_pool: "c3", resize: "c6", linear: "c5", input: "ink" };

export class Graph {
  /** onChoose(node or null), onOpen(path), onClose(path of the parent). */
  constructor(place, { onChoose, onOpen, onClose }) {
    Object.assign(this, { place, onChoose, onOpen, onClose, nodes: [], needle: "", metric: "none" });
    this.group = svg("g", {});
    this.frame = svg("svg", { role: "group", "aria-label": "graph of the network" }, this.group);
    this.frame.addEventListener("click", (event) => event.target === this.frame && this.onChoose(null));
    this.view = new PanZoom(this.frame, this.group);
    const button = (text, label, act) => html("button", { type: "button", "aria-label": label, title: label, click: act }, text);
    place.append(this.frame, html("div", { class: "zoom" },
      button("+", "Zoom in (+)", () => this.view.zoom(1.3)), button("−", "Zoom out (−)", () => this.view.zoom(1 / 1.3)), button("⤢", "Show all (0)", () => this.fit())));
    new ResizeObserver(() => this.found && this.fit()).observe(place);
  }

  /** Draw what Python placed; the view stays where it is, unless it is another network. */
  draw(found, keep) {
    this.found = found;
    this.elements = new Map();
    const edges = found.edges.map((edge) => this.edge(edge));
    const nodes = found.nodes.map((node) => this.node(node));
    this.group.replaceChildren(svg("g", {}, edges), svg("g", {}, nodes));
    this.heat(this.metric);
    this.search(this.needle);
    if (!keep) this.fit();
  }

  fit() {
    const { left, top, width, height } = this.found;
    this.view.fit({ left, top, width: width - left, height: height - top });
  }

  edge({ points, skip, state }) {
    const last = points.at(-1);
    const before = points.at(-2);
    const length = Math.hypot(last[0] - before[0], last[1] - before[1]) || 1;
    const [ux, uy] = [(last[0] - before[0]) / length, (last[1] - before[1]) / length];
    const tip = [[last[0] + ux * 7, last[1] + uy * 7], [last[0] - uy * 3.2, last[1] + ux * 3.2], [last[0] + uy * 3.2, last[1] - ux * 3.2]];
    const kind = `${skip ? " skip" : ""} ${state ?? ""}`;
    return [svg("polyline", { class: `edge${kind}`, points: points.join(" ") }), svg("polygon", { class: `head${kind}`, points: tip.join(" ") })];
  }

  node(node) {
    const { x, y, width, height } = node;
    const open = (event) => {
      event.stopPropagation();
      if (node.opens) this.onOpen(node.path);
      else if (node.path.includes(".")) this.onClose(node.path.split(".").slice(0, -1).join("."));
    };
    const told = [`${node.name}: ${node.what}`, node.shape, node.params, node.sees].filter(Boolean).join(", ");
    const box = svg("rect", { class: "box", x, y, width, height, rx: node.joins ? height / 2 : 7 }, svg("title", {}, told));
    const parts = [box];
    if (node.joins) parts.push(svg("text", { x: x + width / 2, y: y + height / 2 + 4, "text-anchor": "middle" }, node.says));
    else {
      parts.push(
        svg("rect", { class: "heat", x, y, width, height, rx: 7, "fill-opacity": 0 }),
        svg("rect", { x: x + 5, y: y + 7, width: 4, height: height - 14, rx: 2, fill: `var(--${KINDS[node.kind] ?? "faint"})` }),
        svg("text", { class: "label", x: x + 15, y: y + 19 }, node.label),
        svg("text", { class: "shape", x: x + width - (node.opens ? 26 : 9), y: y + 19 }, node.shape),
        svg("text", { x: x + 15, y: y + 35 }, node.says),
        svg("text", { class: "end note", x: x + width - 9, y: y + 51 }, node.params),
        svg("text", { x: x + 15, y: y + 51, class: "sees" }, node.sees),
      );
      if (node.opens) parts.push(svg("g", { click: open }, svg("circle", { class: "knob", cx: x + width - 14, cy: y + 15, r: 8 }), svg("text", { class: "toggle", x: x + width - 14, y: y + 20 }, "+")));
    }
    const key = (event) => {
      if (event.key === "Enter") open(event);
      else if (event.key === " ") this.onChoose(node);
      else return;
      event.preventDefault();
      event.stopPropagation();
    };
    const element = svg("g", { class: `node${node.joins ? " join" : ""} ${node.state ?? ""}`, tabindex: "0", role: "button", "data-node": node.name, click: () => this.onChoose(node), dblclick: open, keydown: key, focus: () => this.reveal(node) }, parts);
    this.elements.set(node.name, element);
    return element;
  }

  /** Bring a box that got the focus by the keyboard into sight. */
  reveal(node) {
    if (!this.elements.get(node.name)?.matches(":focus-visible")) return;
    const room = this.view.room();
    const [left, top] = [node.x * this.view.scale + this.view.x, node.y * this.view.scale + this.view.y];
    const inside = left >= 0 && top >= 0 && left + node.width * this.view.scale <= room.width && top + node.height * this.view.scale <= room.height;
    if (!inside) this.view.centre(node.x + node.width / 2, node.y + node.height / 2, this.view.scale);
  }

  choose(names, centre = false) {
    const chosen = new Set(names);
    this.elements?.forEach((element, name) => element.classList.toggle("chosen", chosen.has(name)));
    const node = centre && this.found?.nodes.find(({ name }) => chosen.has(name));
    if (node) this.view.centre(node.x + node.width / 2, node.y + node.height / 2);
  }

  mark(isChanged) {
    this.found?.nodes.forEach((node) => this.elements.get(node.name).classList.toggle("changed", isChanged(node)));
  }

  /** Colour boxes by their share of the largest; the words say the share of all. */
  heat(metric) {
    this.metric = metric;
    this.found?.nodes.forEach((node) => {
      const element = this.elements.get(node.name);
      const ground = element.querySelector(".heat");
      if (!ground) return;
      ground.setAttribute("fill-opacity", metric === "none" ? 0 : (0.62 * Math.sqrt(node.heat[metric])).toFixed(3));
      element.classList.toggle("hot", metric !== "none" && node.heat[metric] > 0);
      element.dataset.heat = metric === "none" ? "" : node.heat[metric];
      element.querySelector(".note").textContent = metric === "none" ? node.params : node.shown[metric];
    });
  }

  search(needle) {
    this.needle = needle;
    const word = needle.toLowerCase();
    const hits = this.found?.nodes.filter((node) => word && `${node.name} ${node.what} ${node.shape}`.toLowerCase().includes(word)) ?? [];
    this.elements?.forEach((element, name) => element.classList.toggle("dim", Boolean(word) && !hits.some((node) => node.name === name)));
    return hits;
  }
}
