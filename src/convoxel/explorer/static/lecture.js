// The lecture: steps one after the other, each with a picture that Python made, frames, and a few controls.

import { Refusal, ask } from "./library/call.js";
import { byId, html, tell } from "./library/element.js";
import { Player } from "./library/player.js";
import { Figure } from "./library/scene.js";
import { offerCopies, onKey, showError } from "./library/shell.js";
import { State } from "./library/state.js";

const state = new State({ step: "", frame: "" });
let step = null;
let figure = null;
let names = [];

// ---- the path ------------------------------------------------------------------------------------------------

async function showPath() {
  const found = await ask("lecture/path", []);
  if (!found) return;
  names = found.sections.flatMap((section) => section.steps.map(({ name }) => name));
  byId("path").replaceChildren(
    ...found.sections.flatMap(({ title, steps }) => [
      html("h2", {}, title),
      html("ol", {}, steps.map(({ name, title: words }) =>
        html("li", {}, html("a", { href: `?step=${name}`, "data-step": name, click: (event) => (event.preventDefault(), open(name)) }, words)))),
    ]),
  );
  markPath();
}

function markPath() {
  document.querySelectorAll("#path a").forEach((link) => {
    const current = link.dataset.step === step?.name;
    if (current) link.setAttribute("aria-current", "step");
    else link.removeAttribute("aria-current");
    if (current) byId("path").scrollTop = link.offsetTop - byId("path").clientHeight / 2;
  });
}

/** Go to a step; what was changed in the last one is forgotten. */
function open(name) {
  if (!name) return;
  player.stop();
  const cleared = Object.fromEntries((step?.controls ?? []).map((control) => [control.name, ""]));
  state.set({ ...cleared, frame: "", step: name }, true);
}

// ---- one step ------------------------------------------------------------------------------------------------

async function refresh() {
  const concerned = [byId("picture"), byId("controls")];
  try {
    const found = await ask("lecture/step", state.pairs().filter(([name, value]) => name !== "frame" && value));
    if (!found) return;
    const other = found.name !== step?.name;
    step = found;
    showError(null, concerned);
    showStep(other);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    showError(error, concerned);
  }
}

function showStep(other) {
  byId("section").textContent = step.section;
  byId("number").textContent = `${step.number} / ${step.count}`;
  byId("title").textContent = step.title;
  byId("text").textContent = step.text;
  document.title = `${step.title} · Convoxel`;
  if (other) {
    byId("controls").replaceChildren(...step.controls.map(control));
    tell(`${step.title}. ${step.text}`);
    markPath();
  }
  byId("controls").hidden = !step.controls.length;
  const wanted = state.get("frame");
  figure = new Figure(step.picture);
  byId("picture").replaceChildren(figure.element);
  byId("picture").setAttribute("aria-label", `${step.picture.title}. ${step.picture.text}`);
  byId("player").hidden = step.picture.frames < 2;
  byId("seek").max = step.picture.frames - 1;
  show(wanted === "" ? step.picture.rest : Number(wanted) - 1, false);
  for (const side of ["before", "after"]) {
    byId(side).disabled = !step[side];
    byId(side).querySelector("span").textContent = step[side] ? document.querySelector(`#path a[data-step="${step[side]}"]`)?.textContent ?? "" : "";
  }
  byId("link").hidden = !step.link;
  byId("link").href = step.link || "#";
  offerCopies(step.copies);
}

function control({ name, label, least, most, words, value, usual }) {
  const change = (text) => (player.stop(), state.set({ [name]: text === usual ? "" : text, frame: "" }));
  if (words.length) {
    const select = html("select", { name, change: () => change(select.value) }, words.map((word) => html("option", { value: word, selected: word === value }, word)));
    return html("label", {}, label, select);
  }
  const shown = html("output", {}, value);
  const slider = html("input", { type: "range", name, min: least, max: most, value, input: () => ((shown.textContent = slider.value), change(slider.value)) });
  return html("label", {}, label, slider, shown);
}

/** Change the first control by one. */
function nudge(by) {
  const field = byId("controls").querySelector("input, select");
  if (!field) return;
  if (field.matches("select")) field.selectedIndex = (field.selectedIndex + by + field.options.length) % field.options.length;
  else field.value = Number(field.value) + by;
  field.dispatchEvent(new Event(field.matches("select") ? "change" : "input"));
}

// ---- frames --------------------------------------------------------------------------------------------------

function show(frame, remember = true) {
  if (!figure) return;
  figure.show(frame);
  byId("seek").value = figure.frame;
  byId("frame").textContent = `frame ${figure.frame + 1} of ${step.picture.frames}`;
  if (remember && !player.running) state.set({ frame: String(figure.frame + 1) });
}

const player = new Player(byId("play"), {
  wait: () => 1000 * step.picture.frame_s,
  next: () => show(figure.frame + 1),
  rest: () => show(figure.frame),
  ready: () => step?.picture.frames > 1,
});

const turn = (by) => (player.stop(), show(figure.frame + by));

// ---- projection ----------------------------------------------------------------------------------------------

function project() {
  const large = document.body.classList.toggle("projected");
  byId("project").setAttribute("aria-pressed", large);
  byId("project").textContent = large ? "Back" : "Project";
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
// Within a control arrows change it; Escape gives them back to the steps.
byId("controls").addEventListener("keydown", (event) => event.key === "Escape" && event.target.blur());
byId("before").addEventListener("click", () => open(step.before));
byId("after").addEventListener("click", () => open(step.after));
byId("back").addEventListener("click", () => turn(-1));
byId("forth").addEventListener("click", () => turn(1));
byId("project").addEventListener("click", project);
byId("seek").addEventListener("input", () => {
  const frame = Number(byId("seek").value);
  player.stop();
  show(frame);
});
onKey("ArrowRight", () => open(step?.after));
onKey("ArrowLeft", () => open(step?.before));
onKey("PageDown", () => open(step?.after));
onKey("PageUp", () => open(step?.before));
onKey("Home", () => open(names[0]));
onKey("End", () => open(names.at(-1)));
onKey("ArrowDown", () => turn(1));
onKey("ArrowUp", () => turn(-1));
onKey("+", () => nudge(1));
onKey("-", () => nudge(-1));
onKey("f", project);
onKey("Escape", () => document.body.classList.contains("projected") && project());
state.on((changed) => {
  if ([...changed].every((name) => name === "frame")) return;
  refresh();
});
showPath().then(() => step && showStep(false));
refresh();
