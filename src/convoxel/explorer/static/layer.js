// The arithmetic bench: fields, the moving kernel, the matrix, overlap, inverse questions.

import { Refusal, ask } from "./library/call.js";
import { byId, html } from "./library/element.js";
import { bindSwitch, choiceField, foldFields, switchField, textField } from "./library/field.js";
import { Matrix } from "./library/matrix.js";
import { Player } from "./library/player.js";
import { offerCopies, onKey, showError } from "./library/shell.js";
import { Stage } from "./library/stage.js";
import { State } from "./library/state.js";

const POOLS = ["max_pool", "average_pool"];
const DEFAULTS = {
  kind: "correlation", size: "7x7", kernel: "3", stride: "", padding: "none", dilation: "1", output_padding: "0", border: "zeros",
  in: "1", out: "1", groups: "1", bias: "1", ceil: "0", count: "1", numbers: "0", x: "", w: "", order: "C", transpose: "0", want: "", at: "",
};
// What the picture does with an answer, not what Python is asked.
const LOCAL = new Set(["transpose", "want", "at"]);

const state = new State(DEFAULTS);
const stage = new Stage(byId("stage"), (position) => choose({ output: position }), (position) => choose({ input: position }));
const matrix = new Matrix(byId("matrix"), (entry) => choose(entry));
let layer = null;
let chosen = null;

const axes = () => state.get("size").split(/[x×,\s]+/).length;
const isPool = () => POOLS.includes(state.get("kind"));

// ---- fields -----------------------------------------------------------------------------------------------

function buildFields() {
  const side = byId("fields");
  side.addEventListener("submit", (event) => event.preventDefault());
  const all = (value) => Array(axes()).fill(value).join("x");
  const dims = html("div", { class: "field" }, html("span", { class: "small" }, "axes"), dimensions());
  const rows = {
    kind: choiceField(state, "kind", "operation", [
      ["correlation", "correlation"], ["convolution", "convolution"], ["transposed", "transposed"],
      ["max_pool", "max pooling"], ["average_pool", "average pooling"],
    ]),
    size: textField(state, "size", "size", { range: [1, 32], shown: all, help: "Input size: 7, 7x5 or 4x4x4" }),
    kernel: textField(state, "kernel", "kernel", { range: [1, 9], help: "One number for all axes, or 3x5" }),
    stride: textField(state, "stride", "stride", { range: [1, 6], help: "One number for all axes, or 2x1; pooling: the kernel unless given" }),
    padding: choiceField(state, "padding", "padding", ["none", "half", "full", "same", "causal"].map((word) => [word, word])),
    numbers: textField(state, "padding", "in numbers", { range: [0, 8], help: "1, 1x2, or before:after as in 1:0 or 1x0:2; negative numbers crop", own: (text) => !/^[a-z]/.test(text) }),
    dilation: textField(state, "dilation", "dilation", { range: [1, 6] }),
    output_padding: textField(state, "output_padding", "output padding", { range: [0, 5] }),
    border: choiceField(state, "border", "border", ["zeros", "reflect", "replicate", "circular"].map((word) => [word, word])),
    ceil: switchField(state, "ceil", "round up", "Keep a last window that reaches over the end"),
    count: switchField(state, "count", "count zeros", "The average counts zeros of the padding"),
  };
  const costs = {
    in: textField(state, "in", "channels in", { range: [1, 64] }),
    out: textField(state, "out", "channels out", { range: [1, 64] }),
    groups: textField(state, "groups", "groups", { range: [1, 64] }),
    bias: switchField(state, "bias", "bias"),
  };
  side.append(dims, ...Object.values(rows), html("h2", {}, "Channels"), ...Object.values(costs));
  const show = () => {
    const kind = state.get("kind");
    rows.output_padding.hidden = kind !== "transposed";
    rows.border.hidden = kind === "transposed" || isPool();
    rows.ceil.hidden = !isPool();
    rows.count.hidden = kind !== "average_pool";
    costs.out.hidden = costs.groups.hidden = costs.bias.hidden = isPool();
    byId("own-w").parentElement.hidden = isPool();
  };
  state.on(show);
  show();
  foldFields(side, "Layer");
}

function dimensions() {
  const radios = [1, 2, 3].map((count) => {
    const input = html("input", { type: "radio", name: "dims", value: count, change: () => changeAxes(count) });
    return [input, html("label", {}, input, `${count}-D`)];
  });
  const show = () => radios.forEach(([input], index) => (input.checked = index + 1 === axes()));
  state.on(show);
  show();
  return html("div", { class: "segments", role: "radiogroup", "aria-label": "number of axes" }, radios.map(([, label]) => label));
}

/** Another number of axes: the last numbers stay, and those before repeat the first. */
function changeAxes(count) {
  const changes = {};
  for (const name of ["size", "kernel", "stride", "dilation", "output_padding"]) {
    const words = state.get(name).split(/[x×,\s]+/);
    if (words.length === 1 && name !== "size") continue;
    const longer = [...Array(Math.max(0, count - words.length)).fill(words[0]), ...words];
    changes[name] = longer.slice(longer.length - count).join("x");
  }
  if (/x/.test(state.get("padding"))) changes.padding = state.get("padding").split("x").at(-1);
  state.set({ ...changes, x: "", w: "", at: "" });
  document.querySelectorAll("#fields input[name]").forEach((input) => input.name in changes && (input.value = changes[input.name]));
}

// ---- answers ----------------------------------------------------------------------------------------------

const words = () => state.pairs().filter(([name]) => !LOCAL.has(name));

async function refresh() {
  try {
    const found = await ask("layer/describe", words());
    if (!found) return;
    layer = found;
    showError(null, [byId("stage"), byId("facts"), document.querySelector(".headline")]);
    showLayer();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    showError(error, [byId("stage"), byId("facts"), document.querySelector(".headline")]);
    return;
  }
  showMatrix();
  showInverse();
}

const times = (sizes) => sizes.join(" × ");

function showLayer() {
  byId("sentence").textContent = layer.sentence;
  byId("sizes").textContent = `${times(layer.size)} → ${times(layer.output)}`;
  const equations = layer.axes.map((axis) => axis.equation);
  const same = new Set(equations).size === 1;
  byId("equations").replaceChildren(
    ...(same ? layer.axes.slice(0, 1) : layer.axes).map((axis) =>
      html("li", {}, html("b", {}, same ? (layer.axes.length > 1 ? "each axis" : "") : axis.name), axis.equation)),
  );
  byId("accepted").textContent = `Input sizes that fit: ${layer.accepted}`;
  byId("facts").replaceChildren(
    ...layer.facts.map((fact) => html("div", { "data-fact": fact.name, "data-value": fact.value }, html("dt", {}, fact.name),
      html("dd", {}, fact.shown, html("small", {}, fact.text)))),
  );
  offerCopies(layer.copies);
  const strides = [...new Set(layer.axes.map((axis) => axis.s))].length === 1 ? layer.axes[0].s : layer.axes.map((axis) => axis.s).join("x");
  document.querySelector("#fields input[name=stride]").placeholder = strides;
  stage.draw(layer);
  const seek = byId("seek");
  seek.max = Math.max(0, layer.steps - 1);
  ["back", "play", "forth", "seek"].forEach((id) => (byId(id).disabled = !layer.drawn));
  if (!layer.drawn) player.stop();
  const kept = chosen && fits(chosen) ? chosen : fromText(state.get("at")) ?? { output: layer.output.map(() => 0) };
  choose(kept, false);
  showOverlap();
}

function fits({ output, input }) {
  const [position, sizes] = output ? [output, layer.output] : [input, layer.size];
  return position.length === sizes.length && position.every((place, axis) => place < sizes[axis]);
}

function fromText(text) {
  const [kind, places] = text.split(":");
  const position = (places ?? "").split(",").map(Number);
  const found = kind === "in" ? { input: position } : { output: position };
  return places && position.every(Number.isInteger) && fits(found) ? found : null;
}

// ---- the chosen output or input ----------------------------------------------------------------------------

function choose(what, remember = true) {
  if (!layer || !fits(what)) return;
  chosen = what;
  byId("reads").replaceChildren(...(layer.drawn ? stage.choose(what) : [layer.reason]));
  matrix.choose(what);
  if (what.output) {
    const place = flat(what.output, layer.output);
    byId("seek").value = place;
    byId("place").textContent = `output ${place + 1} of ${layer.steps}`;
  } else byId("place").textContent = "an input";
  if (remember && !player.running) state.set({ at: `${what.output ? "out" : "in"}:${(what.output ?? what.input).join(",")}` });
}

const flat = (position, sizes) => position.reduce((sum, place, axis) => sum * sizes[axis] + place, 0);

function position(place, sizes) {
  const found = [];
  for (let axis = sizes.length - 1; axis >= 0; axis--) {
    found.unshift(place % sizes[axis]);
    place = Math.floor(place / sizes[axis]);
  }
  return found;
}

const current = () => flat(chosen.output ?? layer.output.map(() => 0), layer.output);
const go = (place) => choose({ output: position((place + layer.steps) % layer.steps, layer.output) });

function move(axis, by) {
  const [kind, sizes] = chosen.input ? ["input", layer.size] : ["output", layer.output];
  const at = [...chosen[kind]];
  const along = axis < 0 ? sizes.length + axis : axis;
  if (along < 0) return;
  at[along] = Math.min(sizes[along] - 1, Math.max(0, at[along] + by));
  choose({ [kind]: at });
}

const player = new Player(byId("play"), {
  wait: () => 1000 / Number(byId("speed").value),
  next: () => {
    byId("stage").classList.toggle("fast", player.wait() < 250);
    go(chosen.output ? current() + 1 : 0);
  },
  rest: () => chosen && choose(chosen),
  ready: () => layer?.drawn,
});

function step(by) {
  player.stop();
  go(chosen.output ? current() + by : 0);
}

function bindPlayer() {
  byId("back").addEventListener("click", () => step(-1));
  byId("forth").addEventListener("click", () => step(1));
  byId("seek").addEventListener("input", () => {
    const place = Number(byId("seek").value);
    player.stop();
    go(place);
  });
  const over = () => byId("stage").contains(document.activeElement);
  onKey("ArrowLeft", () => (over() ? (player.stop(), move(-1, -1)) : step(-1)));
  onKey("ArrowRight", () => (over() ? (player.stop(), move(-1, 1)) : step(1)));
  onKey("ArrowUp", () => over() && (player.stop(), move(-2, -1)));
  onKey("ArrowDown", () => over() && (player.stop(), move(-2, 1)));
  onKey("PageUp", () => over() && (player.stop(), move(-3, -1)));
  onKey("PageDown", () => over() && (player.stop(), move(-3, 1)));
  onKey("Home", () => (player.stop(), go(0)));
  onKey("End", () => (player.stop(), go(layer.steps - 1)));
  onKey("i", () => (player.stop(), choose(chosen.input ? { output: layer.output.map(() => 0) } : { input: layer.size.map(() => 0) })));
  onKey("n", () => byId("numbers").click());
}

// ---- matrix, overlap, inverse questions --------------------------------------------------------------------

async function showMatrix() {
  try {
    const found = await ask("layer/matrix", words());
    if (!found) return;
    byId("matrix-text").textContent = found.text;
    matrix.draw(found, layer, state.get("transpose") === "1");
    matrix.choose(chosen);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    byId("matrix-text").textContent = error.message;
    matrix.clear();
  }
}

function showOverlap() {
  const found = layer.overlap;
  byId("overlap-card").hidden = !found;
  if (!found) return;
  byId("overlap-text").textContent = found.text;
  byId("overlap").replaceChildren(stage.overlap(found));
}

async function showInverse() {
  const wanted = state.get("want");
  byId("inverse").replaceChildren();
  if (!wanted) return void (byId("inverse-text").textContent = "Give an output size, such as 56: which inputs and which layers make it?");
  try {
    const found = await ask("layer/inverse", [...words(), ["want", wanted]]);
    if (!found) return;
    byId("inverse-text").replaceChildren(found.inputs, " ", found.try ? chip(`try ${found.try}`, { size: found.try }) : "");
    const parts = found.layers.flatMap((each) => [
      html("h3", {}, `${each.input} → ${each.output}: ${each.count} layer${each.count === 1 ? "" : "s"} with kernels up to 11, ${each.equation}`),
      html("div", {}, each.rows.map((row) => chip(row.text, layerWords(row)))),
      each.count > each.rows.length ? html("p", { class: "soft" }, `… and ${each.count - each.rows.length} more`) : null,
    ]);
    byId("inverse").replaceChildren(...parts.filter(Boolean));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    byId("inverse-text").textContent = error.message;
  }
}

function layerWords({ kernel, stride, padding, dilation }) {
  const pads = Array.isArray(padding) ? padding.join(":") : String(padding);
  return { kernel, stride, padding: pads === "0" ? "none" : pads, dilation };
}

function chip(text, changes) {
  const apply = () => {
    state.set(changes, true);
    document.querySelectorAll("#fields input[name]").forEach((input) => input.name in changes && (input.value = changes[input.name]));
  };
  return html("button", { type: "button", class: "chip", click: apply }, text);
}

// ---- start -------------------------------------------------------------------------------------------------

buildFields();
bindPlayer();
bindSwitch(state, "numbers", byId("numbers"));
bindSwitch(state, "transpose", byId("transpose"));
byId("columns").checked = state.get("order") === "F";
byId("columns").addEventListener("change", () => state.set({ order: byId("columns").checked ? "F" : "C" }));
byId("want").value = state.get("want");
byId("want").addEventListener("input", () => state.set({ want: byId("want").value.trim() }));
for (const name of ["x", "w"]) {
  const area = byId(`own-${name}`);
  area.value = state.get(name);
  area.addEventListener("input", () => state.set({ [name]: area.value, numbers: "1" }));
}
byId("own").open = Boolean(state.get("x") || state.get("w"));
document.addEventListener("theme", () => matrix.paint());
for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", () => matrix.paint());
state.on((names) => {
  if ([...names].every((name) => name === "at")) return;
  if ([...names].every((name) => name === "want")) return showInverse();
  if ([...names].every((name) => name === "transpose" || name === "order")) return showMatrix();
  refresh();
});
refresh();
