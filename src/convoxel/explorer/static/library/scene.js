// A figure that Python made: its shapes drawn in the colours of the theme, and moved from frame to frame.

import { svg } from "./element.js";

/** A colour on light pages, and on dark ones. */
const shade = (pair) => (pair ? `light-dark(${pair[0]}, ${pair[1]})` : "none");

function worn(look, text) {
  const part = Boolean(look.fill) === Boolean(look.stroke) ? "opacity" : look.fill ? "fill-opacity" : "stroke-opacity";
  return {
    fill: shade(look.fill),
    stroke: look.stroke ? shade(look.stroke) : null,
    [part]: look.opacity === 1 ? null : look.opacity,
    "stroke-width": look.stroke ? look.weight : null,
    "stroke-dasharray": look.dash.length ? look.dash.join(" ") : null,
    "stroke-linejoin": look.stroke ? "round" : null,
    ...(text ? { "font-size": look.size, "font-weight": look.bold ? 600 : null, "text-anchor": look.align === "start" ? null : look.align, "paint-order": look.stroke ? "stroke" : null } : {}),
  };
}

function pairs(values) {
  const found = [];
  for (let index = 0; index < values.length; index += 2) found.push([values[index], values[index + 1]]);
  return found;
}

export class Figure {
  constructor(found) {
    this.found = found;
    this.timed = [];
    this.movers = [];
    this.frame = null;
    const { width, height, title, text } = found;
    this.element = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${title}. ${text}` }, found.shapes.map((shape) => this.shape(shape)));
    this.show(found.rest);
  }

  shape(shape) {
    const made = this.made(shape);
    for (const [name, value] of Object.entries(shape.data ?? {})) made.setAttribute(`data-${name}`, value);
    if (shape.note) made.append(svg("title", {}, shape.note));
    if (shape.when) this.timed.push([made, new Set(shape.when)]);
    return made;
  }

  made(shape) {
    const look = this.found.looks[shape.look];
    if (shape.group) {
      const group = svg("g", {}, shape.group.map((part) => this.shape(part)));
      if (shape.moves.length > 1) {
        group.classList.add("moving");
        this.movers.push([group, shape.moves]);
      } else group.setAttribute("transform", `translate(${shape.moves[0].join(" ")})`);
      return group;
    }
    if (shape.bitmap) {
      const [x, y, width, height] = shape.box;
      const image = svg("image", { x, y, width, height, href: shape.bitmap, preserveAspectRatio: "none" });
      if (!shape.smooth) image.style.imageRendering = "pixelated";
      return image;
    }
    if (shape.box) {
      const [x, y, width, height, rx] = shape.box;
      return svg("rect", { x, y, width, height, rx: rx || null, ...worn(look) });
    }
    if (shape.disc) return svg("circle", { cx: shape.disc[0], cy: shape.disc[1], r: shape.disc[2], ...worn(look) });
    if (shape.line) return svg(shape.closed ? "polygon" : "polyline", { points: shape.line.join(" "), ...worn(look) });
    if (shape.squares) {
      const path = pairs(shape.squares).map(([x, y]) => `M${x} ${y}h${shape.side}v${shape.side}h${-shape.side}z`).join("");
      return svg("path", { d: path, ...worn(look) });
    }
    const { fill, ...rest } = worn(look, true);
    const text = svg("text", { x: shape.at[0], y: shape.at[1], ...rest }, shape.words);
    text.style.fill = fill; // the page's own rule for texts would win over an attribute
    return text;
  }

  /** Show a frame; numbers beyond the ends go around. */
  show(frame) {
    const { frames } = this.found;
    this.frame = ((frame % frames) + frames) % frames;
    for (const [element, when] of this.timed) element.setAttribute("visibility", when.has(this.frame) ? "visible" : "hidden");
    for (const [element, moves] of this.movers) {
      const [x, y] = moves[this.frame % moves.length];
      element.setAttribute("transform", `translate(${x} ${y})`);
      element.style.transform = `translate(${x}px, ${y}px)`;
    }
  }
}
