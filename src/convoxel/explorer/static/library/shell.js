// What every page has: theme, keys, and the list of what can be copied.

import { byId, html, tell } from "./element.js";

const keys = new Map();
let copies = [];

/** Let a key act, unless it is typed into a field. */
export function onKey(key, act) {
  keys.set(key, act);
}

/** Replace what "Copy as …" offers: [{ name, text }]. */
export function offerCopies(list) {
  copies = list;
}

export function isTyping(event) {
  const element = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  return element instanceof HTMLElement && (element.matches("textarea, select, input:not([type=checkbox])") || element.isContentEditable);
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {} // a frame of a notebook may have no storage
  document.dispatchEvent(new CustomEvent("theme"));
}

async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  button.textContent = "Copied";
  tell("Copied");
  setTimeout(() => (button.textContent = "Copy"), 1200);
}

function showCopies() {
  const rows = copies.map(({ name, text }) => {
    const button = html("button", { type: "button", click: () => copy(text, button) }, "Copy");
    return [html("div", { class: "copy-row" }, html("h2", {}, name), button), html("pre", { tabindex: "0" }, text)];
  });
  byId("copy-list").replaceChildren(...rows.flat());
  byId("copies").showModal();
}

byId("theme").addEventListener("click", toggleTheme);
byId("help").addEventListener("click", () => byId("keys").showModal());
byId("copy").addEventListener("click", showCopies);
onKey("t", toggleTheme);
onKey("c", showCopies);
onKey("?", () => byId("keys").showModal());
document.querySelectorAll(".top nav a").forEach((link, index) => onKey(String(index + 1), () => link.click()));

document.addEventListener("keydown", (event) => {
  if (isTyping(event) || document.querySelector("dialog[open]")) return;
  const act = keys.get(event.key);
  if (!act) return;
  // Space presses the button that has the focus, and an arrow moves a slider.
  if (event.key === " " && event.target.closest?.("button, summary, a, input")) return;
  event.preventDefault();
  act(event);
});

/** Show a refusal of Python, or hide the last one; what it concerns is greyed. */
export function showError(error, concerned = []) {
  const place = byId("error");
  place.hidden = !error;
  place.textContent = error ? error.message : "";
  concerned.forEach((element) => element.classList.toggle("stale", Boolean(error)));
}
