// Figures that Python drew, in the light or dark of the page.

import { html } from "./element.js";

const frame = new CSSStyleSheet();
frame.replaceSync(":host { display: block } svg { display: block; max-width: 100%; height: auto }");

/** Show the SVG text of a figure (its theme is "page") in an element, in place of what it showed before. */
export function showFigure(host, text) {
  // The policy of the page forbids style sheets within its text, but not those that its own scripts make. In a shadow
  // tree the sheet concerns this figure alone.
  const sheet = new CSSStyleSheet();
  const bare = text.replace(/<style>([^]*?)<\/style>/, (_, rules) => {
    sheet.replaceSync(rules.replaceAll("&gt;", ">").replaceAll("&amp;", "&"));
    return "";
  });
  const drawn = new DOMParser().parseFromString(bare, "image/svg+xml").documentElement;
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [frame, sheet];
  root.replaceChildren(document.importNode(drawn, true));
}

/** An element that shows a figure. */
export function figure(text, attributes = {}) {
  const host = html("div", { class: "figure", ...attributes });
  showFigure(host, text);
  return host;
}
