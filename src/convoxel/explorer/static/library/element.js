// Elements of HTML and SVG, with attributes, listeners and children. Texts stay texts.

const SPACE = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "class") element.setAttribute("class", value);
    else if (name in element && typeof value === "boolean") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return element;
}

/** An element of HTML: html("button", { type: "button", click: act }, "Go"). */
export const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** An element of SVG. */
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SPACE, tag), attributes, children);

export const byId = (id) => document.getElementById(id);

/** Tell users of a screen reader. */
export function tell(text) {
  byId("told").textContent = text;
}
