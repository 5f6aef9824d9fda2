// Receptive fields over an image: choose a layer, click a place, and see what the unit there reads.

import { Refusal, ask } from "./library/call.js";
import { byId, html, tell } from "./library/element.js";
import { bindSwitch, foldFields } from "./library/field.js";
import { fillImages, fillNetworks, listImages, listNetworks, selectRow } from "./library/picker.js";
import { offerCopies, onKey, showError } from "./library/shell.js";
import { Slices } from "./library/slices.js";
import { State } from "./library/state.js";

const state = new State({ net: "", image: "", layer: "", voxel: "", at: "", heat: "1", low: "", high: "", channel: "0", options: "" });
const slices = new Slices(byId("slices"), { onVoxel: (voxel) => state.set({ voxel: voxel.join(","), at: "" }), onWindow: (window) => showWindow(window, true) });
let network = null;
let unit = null;
let timer = null;

// ---- fields -------------------------------------------------------------------------------------------------

const side = byId("fields");
const [netRow, netSelect] = selectRow("network", "net", (net) => state.set({ net, set: [], layer: "", at: "" }, true));
const [imageRow, imageSelect] = selectRow("image", "image", (image) => state.set({ image, voxel: "", at: "", low: "", high: "", channel: "0" }, true));
const [layerRow, layerSelect] = selectRow("layer", "layer", (layer) => state.set({ layer, ...keepPlace() }));
const [channelRow, channelSelect] = selectRow("channel", "channel", (channel) => state.set({ channel }));
const options = html("input", { id: "options", spellcheck: "false", autocomplete: "off", placeholder: "levels=3 width=16" });
options.addEventListener("change", () => state.set({ set: options.value.split(/\s+/).filter(Boolean), layer: "", at: "" }));
const optionsRow = html("div", { class: "field", title: "Options of a network of the zoo, as --set takes them" }, html("label", { for: "options" }, "options"), options);
const units = html("div", { class: "units", role: "group", "aria-label": "position of the unit in its map" });
const unitRow = html("div", { class: "field" }, html("span", { class: "small" }, "unit"), units);
const [low, high] = ["black", "white"].map((name) => html("input", { type: "range", "aria-label": `value shown as ${name}`, step: "any" }));
const windowText = html("output", { class: "small" });
const windowRow = html("div", { class: "field" }, html("span", { class: "small" }, "black"), low, html("span", { class: "small" }, "white"), high, html("span", {}), windowText);
const usual = html("button", { type: "button", class: "chip", click: () => state.set({ low: "", high: "" }) }, "usual");
const full = html("button", { type: "button", class: "chip", click: () => showWindow(slices.image.ends, true) }, "all values");
const heatBox = html("input", { type: "checkbox", id: "heat" });
const heatRow = html("div", { class: "field" }, html("label", { for: "heat" }, "influence"), heatBox);

function buildFields() {
  side.addEventListener("submit", (event) => event.preventDefault());
  layerRow.classList.add("tall");
  side.append(netRow, optionsRow, imageRow, html("h2", {}, "Unit"), layerRow, unitRow, heatRow, html("h2", {}, "Shades"), channelRow, windowRow, html("div", { class: "field" }, html("span", {}), html("div", {}, usual, full)));
  bindSwitch(state, "heat", heatBox);
  const slide = () => showWindow([Number(low.value), Number(high.value)].sort((a, b) => a - b), true);
  low.addEventListener("input", slide);
  high.addEventListener("input", slide);
  foldFields(side, "Network and image");
}

/** The place in the image stays when the layer changes. */
const keepPlace = () => ({ voxel: slices.voxel?.join(",") ?? "", at: "" });

function showWindow(window, remember = false) {
  slices.set({ window });
  [low.value, high.value] = window;
  windowText.textContent = window.map((value) => Number(value.toPrecision(4))).join(" to ");
  if (!remember) return;
  clearTimeout(showWindow.timer);
  showWindow.timer = setTimeout(() => state.set({ low: String(Number(window[0].toPrecision(6))), high: String(Number(window[1].toPrecision(6))) }), 200);
}

function showUnits() {
  if (units.childElementCount !== unit.map.length) {
    units.replaceChildren(...unit.map.map((count, axis) => html("input", { type: "number", min: 0, "aria-label": `axis ${axis}`, input: () => chooseUnit() })));
  }
  [...units.children].forEach((input, axis) => {
    input.max = unit.map[axis] - 1;
    if (document.activeElement !== input) input.value = unit.at[axis];
  });
}

function chooseUnit() {
  const at = [...units.children].map((input) => input.value);
  if (at.every((place) => /^\d+$/.test(place))) state.set({ at: at.join(","), voxel: "" });
}

// ---- answers ------------------------------------------------------------------------------------------------

const words = () => state.pairs().filter(([name]) => ["net", "set", "image"].includes(name));
const shown = () => [byId("slices"), byId("sees"), byId("influence")];

async function openImage() {
  const bar = byId("loading");
  const image = await slices.open(state.get("image"), (found) => {
    bar.hidden = !found;
    if (!found) return;
    byId("share").value = found.share;
    byId("loading-text").textContent = found.text;
  });
  if (!image) return null;
  [low, high].forEach((input) => ([input.min, input.max] = image.ends));
  channelRow.hidden = image.channels === 1 || image.coloured;
  channelSelect.replaceChildren(...Array.from({ length: image.channels }, (_, index) => html("option", { value: String(index) }, String(index))));
  return image;
}

/** The page as the address says: the image first, then the network's layers, then the unit. */
async function refresh(names) {
  const all = !names;
  const has = (...some) => all || some.some((name) => names.has(name));
  try {
    if (has("image") || !slices.image) {
      byId("slices").classList.add("stale");
      if (!(await openImage())) return;
      byId("slices").classList.remove("stale");
      if (imageSelect.value !== slices.image.image) imageSelect.value = slices.image.image;
    }
    if (has("low", "high", "image")) showWindow([state.get("low") === "" ? slices.image.window[0] : Number(state.get("low")), state.get("high") === "" ? slices.image.window[1] : Number(state.get("high"))].map((value, index) => (Number.isFinite(value) ? value : slices.image.window[index])));
    if (has("channel", "image")) {
      channelSelect.value = state.get("channel");
      slices.set({ channel: Number(state.get("channel")) || 0 });
    }
    if (has("net", "set", "image")) {
      const found = await ask("fields/describe", [...words(), ["layer", state.get("layer")]]);
      if (!found) return;
      showNetwork(found);
    }
    if (has("net", "set", "image", "layer", "voxel", "at")) await showUnit();
    if (has("heat") && !all) showHeat();
    showError(null, shown());
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    showError(error, shown());
  }
}

function showNetwork(found) {
  network = found;
  if (netSelect.value !== found.net) netSelect.value = found.net;
  if (document.activeElement !== options) options.value = state.all("set").join(" ");
  optionsRow.hidden = found.net.includes("/");
  byId("subject").textContent = found.text;
  layerSelect.replaceChildren(...found.layers.map(({ name, text }) => html("option", { value: name }, text)));
  layerSelect.value = state.get("layer") || found.layer;
}

async function showUnit() {
  const place = state.get("at") ? [["at", state.get("at")]] : state.get("voxel") ? [["voxel", state.get("voxel")]] : [];
  const found = await ask("fields/unit", [...words(), ["layer", state.get("layer")], ...place]);
  if (!found) return;
  unit = found;
  layerSelect.value = found.layer;
  byId("sees").textContent = found.text;
  offerCopies(found.copies);
  showUnits();
  const voxel = state.get("voxel") ? state.get("voxel").split(",").map(Number) : found.centre?.map((place, axis) => Math.min(slices.image.size[axis] - 1, Math.max(0, Math.round(place))));
  const boxes = found.box ? [{ name: "exact", edges: found.edges }] : [];
  const fits = voxel?.length === slices.image.size.length && voxel.every((place, axis) => place >= 0 && place < slices.image.size[axis]);
  slices.set({ boxes, dots: found.centres, heat: null, ...(fits ? { voxel } : {}) });
  showAxes(found);
  showHeat();
  tell(found.text);
}

function showAxes(found) {
  if (!found.box) return byId("axes").replaceChildren(html("p", {}, "This unit sees no input at all."));
  const span = ([first, last]) => `${first} to ${last}`.replaceAll("-", "−");
  const edge = (ends) => span(ends.map((end, index) => Math.round((end + (index ? -0.5 : 0.5)) * 100) / 100));
  const names = { 1: ["positions"], 2: ["rows", "columns"], 3: ["slices", "rows", "columns"] }[found.box.length];
  const rows = found.box.map((box, axis) => [names[axis], String(found.sides[axis]), span(box), span(found.clipped[axis]), edge(found.edges[axis]), edge(found.clipped_edges[axis])]);
  const head = ["", "inputs", "exact", "within the input", "voxels", "voxels of the image"].map((text) => html("th", { scope: "col" }, text));
  const body = rows.map(([name, ...cells]) => html("tr", {}, html("th", { scope: "row" }, name), cells.map((text) => html("td", {}, text))));
  byId("axes").replaceChildren(html("table", {}, html("thead", {}, html("tr", {}, head)), html("tbody", {}, body)), html("p", { class: "small" }, `${found.share} of the input lies within the field.`));
}

/** Measure the influence once the cross-hair rests. */
function showHeat() {
  clearTimeout(timer);
  slices.set({ heat: null });
  document.body.dataset.measuring = "0";
  const text = byId("influence");
  text.textContent = "";
  if (state.get("heat") !== "1" || !unit) return;
  if (!unit.measurable) return void (text.textContent = network.gradients ? "The influence on this step is not measured: it is no module's output. The box is exact." : "The influence is not measured: a network of a file has no gradients. The box is exact.");
  text.textContent = "Measuring the influence …";
  document.body.dataset.measuring = "1";
  const question = [...words(), ["layer", unit.layer], ["at", unit.at.join(",")]];
  timer = setTimeout(() => measure(question, text), 350);
}

async function measure(question, text) {
  try {
    const found = await ask("fields/effective", question);
    if (!found) return;
    text.textContent = found.text;
    slices.set({ heat: { name: "fields/heat", words: question, curve: found.curve } });
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    text.textContent = error.message;
  }
  document.body.dataset.measuring = "0";
}

function nextLayer(by) {
  const place = network.layers.findIndex(({ name }) => name === unit.layer) + by;
  const layer = network.layers[Math.min(network.layers.length - 1, Math.max(0, place))];
  if (layer) state.set({ layer: layer.name, ...keepPlace() });
}

// ---- start --------------------------------------------------------------------------------------------------

async function start() {
  buildFields();
  const [catalogue, images] = await Promise.all([listNetworks(), listImages()]);
  fillNetworks(netSelect, catalogue, state.get("net") || catalogue.opened[0] || "resnet18");
  fillImages(imageSelect, images, state.get("image"));
  await refresh();
}

onKey("l", () => nextLayer(1));
onKey("k", () => nextLayer(-1));
onKey("h", () => heatBox.click());
state.on(refresh);
document.addEventListener("theme", () => slices.repaint());
start();
