// Inside a network: the feature maps of a layer, and a closer look at one of their numbers.

import { Refusal, ask, askPicture } from "./library/call.js";
import { byId, html, svg, tell } from "./library/element.js";
import { bindSwitch, foldFields } from "./library/field.js";
import { grid, spelled } from "./library/numbers.js";
import { fillImages, fillNetworks, listImages, listNetworks, selectRow } from "./library/picker.js";
import { offerCopies, onKey, showError } from "./library/shell.js";
import { Slices } from "./library/slices.js";
import { State } from "./library/state.js";

const state = new State({ net: "", image: "", layer: "", channel: "0", at: "", inner: "", same: "0", tab: "number", index: "", voxel: "", rank: "1", shift: "1", bend: "wider", amount: "50", method: "gradcam++", class: "" });
const slices = new Slices(byId("slices"), { onVoxel: (voxel) => state.set({ voxel: voxel.join(",") }) });
const NETWORK = ["net", "set", "image"];
let network = null;
let maps = null;
let at = null;

// ---- fields -------------------------------------------------------------------------------------------------

const side = byId("fields");
const fresh = { layer: "", channel: "0", at: "", inner: "", index: "" };
const [netRow, netSelect] = selectRow("network", "net", (net) => state.set({ net, set: [], ...fresh }, true));
const [imageRow, imageSelect] = selectRow("image", "image", (image) => state.set({ image, voxel: "", ...fresh, layer: state.get("layer") }, true));
const [layerRow, layerSelect] = selectRow("layer", "layer", (layer) => state.set({ ...fresh, layer }));
const options = html("input", { id: "options", spellcheck: "false", autocomplete: "off", placeholder: "levels=3 width=16" });
options.addEventListener("change", () => state.set({ set: options.value.split(/\s+/).filter(Boolean), ...fresh }));
const optionsRow = html("div", { class: "field", title: "Options of a network of the zoo, as --set takes them" }, html("label", { for: "options" }, "options"), options);
const channel = html("input", { id: "channel", type: "number", min: 0 });
channel.addEventListener("input", () => /^\d+$/.test(channel.value) && state.set({ channel: channel.value, inner: "" }));
const channelRow = html("div", { class: "field" }, html("label", { for: "channel" }, "channel"), channel);
const places = html("div", { class: "units", role: "group", "aria-label": "position in the map" });
const placeRow = html("div", { class: "field" }, html("span", { class: "small" }, "position"), places);

function buildFields() {
  side.addEventListener("submit", (event) => event.preventDefault());
  layerRow.classList.add("tall");
  side.append(netRow, optionsRow, imageRow, html("h2", {}, "Look at"), layerRow, channelRow, placeRow);
  bindSwitch(state, "same", byId("same"));
  byId("slice").addEventListener("input", () => state.set({ index: byId("slice").value }));
  foldFields(side, "Network and image");
}

const words = (...names) => state.pairs().filter(([name]) => [...NETWORK, "voxel", ...names].includes(name));
const layerWords = (...names) => words("layer", "channel", "index", ...names);

// ---- answers ------------------------------------------------------------------------------------------------

async function refresh(names) {
  const has = (...some) => !names || some.some((name) => names.has(name));
  const concerned = [byId("sheet"), byId("layer-text"), byId("panel")];
  try {
    if (has("image")) {
      if (!(await openImage())) return;
    }
    const large = network && network.part.join() !== slices.image.size.join();
    if (has(...NETWORK) || (large && has("voxel"))) {
      const found = await ask("inside/describe", words("layer"));
      if (!found) return;
      showNetwork(found);
    }
    if (has(...NETWORK, "layer", "index", "same") || (large && has("voxel"))) {
      if (!(await showMaps())) return;
    }
    if (has(...NETWORK, "layer", "channel", "at", "inner", "index", "tab", "rank", "shift", "bend", "amount", "method", "class") || (large && has("voxel"))) await showTab();
    showError(null, concerned);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    showError(error, concerned);
  }
}

async function openImage() {
  const image = await slices.open(state.get("image"), (found) => {
    byId("loading").hidden = !found;
    if (!found) return;
    byId("share").value = found.share;
    byId("loading-text").textContent = found.text;
  });
  if (!image) return null;
  imageSelect.value = image.image;
  const voxel = state.get("voxel").split(",").map(Number);
  slices.set(voxel.length === image.size.length && voxel.every(Number.isInteger) ? { voxel } : {});
  return image;
}

function showNetwork(found) {
  network = found;
  netSelect.value = found.net;
  if (document.activeElement !== options) options.value = state.all("set").join(" ");
  optionsRow.hidden = found.net.includes("/");
  byId("subject").textContent = found.text;
  layerSelect.replaceChildren(...found.layers.map(({ name, text }) => html("option", { value: name }, text)));
  layerSelect.value = state.get("layer") || found.layer;
}

const room = () => Math.max(200, byId("sheet").clientWidth - 4);

async function showMaps() {
  const asked = [...words("layer", "index", "same"), ["room", room()]];
  byId("layer-text").setAttribute("aria-busy", "true");
  const [found, picture] = await Promise.all([ask("inside/maps", asked), askPicture("inside/sheet", asked)]);
  byId("layer-text").removeAttribute("aria-busy");
  if (!found || !picture) return false;
  maps = found;
  layerSelect.value = found.layer;
  byId("layer-text").textContent = found.text;
  channel.max = found.channels - 1;
  const canvas = html("canvas", { width: picture.width, height: picture.height, click: (event) => choose(event, canvas) });
  canvas.getContext("2d").drawImage(picture, 0, 0);
  const overlay = svg("svg", { width: picture.width, height: picture.height, viewBox: `0 0 ${picture.width} ${picture.height}`, "aria-hidden": "true" });
  byId("sheet").replaceChildren(canvas, overlay);
  byId("slice-row").hidden = found.axis === null;
  byId("slice").max = found.slices - 1;
  byId("slice").value = found.index;
  byId("slice-number").textContent = `${found.index} of ${found.slices - 1}`;
  offerCopies(found.copies);
  return true;
}

/** Click: the channel of the tile, and the position in it. */
function choose(event, canvas) {
  const box = canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const [tall, wide] = [maps.tile[0] * maps.scale[0] + maps.gap, maps.tile[1] * maps.scale[1] + maps.gap];
  const number = Math.floor(y / tall) * maps.columns + Math.floor(x / wide);
  if (number >= maps.count || Math.floor(x / wide) >= maps.columns) return;
  const [row, column] = [Math.min(maps.tile[0] - 1, Math.floor((y % tall) / maps.scale[0])), Math.min(maps.tile[1] - 1, Math.floor((x % wide) / maps.scale[1]))];
  spot = [row, column];
  state.set({ channel: String(maps.first + number), inner: "", at: `r${row},${column}` });
}

let spot = null;

/** The position as Python takes it: numbers along the map's axes, or row and column of what is shown. */
function placeWords() {
  const text = state.get("at");
  if (!text) return [];
  if (!text.startsWith("r")) return [["at", text]];
  const [row, column] = text.slice(1).split(",");
  return [["row", row], ["column", column]];
}

function showPlace() {
  const overlay = byId("sheet").querySelector("svg");
  if (!overlay || !maps) return;
  const number = Number(state.get("channel")) - maps.first;
  const [tall, wide] = [maps.tile[0] * maps.scale[0], maps.tile[1] * maps.scale[1]];
  const [x, y] = [(number % maps.columns) * (wide + maps.gap), Math.floor(number / maps.columns) * (tall + maps.gap)];
  const shapes = [svg("rect", { class: "chosen-tile", x: x + 1, y: y + 1, width: wide - 2, height: tall - 2 })];
  if (spot && state.get("at")) {
    const cell = { x: x + spot[1] * maps.scale[1] - 1, y: y + spot[0] * maps.scale[0] - 1, width: maps.scale[1] + 2, height: maps.scale[0] + 2 };
    shapes.push(svg("rect", { class: "chosen-at back", ...cell }), svg("rect", { class: "chosen-at", ...cell }));
  }
  overlay.replaceChildren(...shapes);
  byId("ends").textContent = number >= 0 && number < maps.count ? `· channel ${state.get("channel")}: ${spelled(maps.least[number])} to ${spelled(maps.largest[number])}, mean ${spelled(maps.mean[number])}` : "";
  if (document.activeElement !== channel) channel.value = state.get("channel");
}

function showPosition(position) {
  at = position;
  if (places.childElementCount !== position.length) {
    places.replaceChildren(...position.map((_, axis) => html("input", { type: "number", min: 0, "aria-label": `axis ${axis}`, input: () => choosePosition() })));
  }
  [...places.children].forEach((input, axis) => {
    input.max = maps.size[axis] - 1;
    if (document.activeElement !== input) input.value = position[axis];
  });
}

function choosePosition() {
  const position = [...places.children].map((input) => input.value);
  spot = null;
  if (position.every((place) => /^\d+$/.test(place))) state.set({ at: position.join(","), inner: "" });
}

// ---- tabs ---------------------------------------------------------------------------------------------------

const TABS = {
  number: ["One number", showNumber], kernel: ["Kernel and rank", showKernel], pooling: ["Pooling", showPooling],
  upsampling: ["Up-sampling", showUpsampling], deformable: ["Deformable", showDeformable], shift: ["Shifted input", showShift], explain: ["What speaks for it", showExplain],
};

function buildTabs() {
  const names = Object.keys(TABS);
  const buttons = names.map((name) => html("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", click: () => state.set({ tab: name }) }, TABS[name][0]));
  byId("tabs").replaceChildren(...buttons);
  byId("tabs").addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const next = (names.indexOf(state.get("tab")) + by + names.length) % names.length;
    state.set({ tab: names[next] });
    buttons[next].focus();
  });
}

async function showTab() {
  const name = TABS[state.get("tab")] ? state.get("tab") : "number";
  for (const button of byId("tabs").children) {
    const is = button.id === `tab-${name}`;
    button.setAttribute("aria-selected", String(is));
    button.tabIndex = is ? 0 : -1;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${name}`);
  showPlace();
  if (name !== "explain") slices.set({ heat: null });
  byId("panel").setAttribute("aria-busy", "true");
  try {
    const content = await TABS[name][1]();
    if (content) byId("panel").replaceChildren(...content.filter(Boolean));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    byId("panel").replaceChildren(html("p", { class: "error" }, error.message));
  } finally {
    byId("panel").removeAttribute("aria-busy");
  }
}

const line = (text, more = "") => html("p", { class: more }, text);

async function showNumber() {
  const found = await ask("inside/number", [...layerWords("inner"), ...placeWords()], "tab");
  if (!found) return null;
  showPosition(found.at);
  tell(found.text);
  showField(found);
  const parts = [line(found.text, "formula")];
  if (found.kind === "sum" && found.kernel) {
    const shaped = (pick) => reshape(found.terms, found.kernel, pick);
    if (found.terms.length === found.kernel.reduce((product, size) => product * size, 1)) {
      parts.push(html("div", { class: "grids" }, grid(`input, channel ${found.inner}`, shaped((term) => term.x)), grid("× kernel", shaped((term) => term.w)), grid("= products", shaped((term) => term.product))));
    }
    const most = Math.max(...found.channels.map(([, sum]) => Math.abs(sum)), 1e-12);
    const ordered = [...found.channels].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 12);
    const bar = (share) => {
      const i = html("i", { class: share < 0 ? "below" : "" });
      i.style.width = `${Math.abs(share) * 100}%`;
      return i;
    };
    parts.push(html("h3", {}, `What each input channel adds${found.channels.length > 12 ? ` (the strongest 12 of ${found.channels.length})` : ""}`),
      html("div", { class: "bars" }, ordered.map(([inner, sum]) => html("div", {}, html("button", { type: "button", "aria-pressed": String(inner === found.inner), click: () => state.set({ inner: String(inner) }) }, `channel ${inner}`), bar(sum / most), html("span", {}, spelled(sum))))));
  } else if (found.terms.length > 1 && found.kernel) {
    const best = found.kind === "max" ? Math.max(...found.terms.filter((term) => term.source).map((term) => term.x)) : null;
    const values = reshape(found.terms, found.kernel, (term) => (term.source ? term.x : null));
    parts.push(html("div", { class: "grids" }, grid("window", values, { picked: (place) => best !== null && place.reduce((rows, index) => rows[index], values) === best })));
  }
  parts.push(line(`The engine computed ${spelled(found.computed, 7)}; by this formula it is ${spelled(found.value, 7)}.`, "small"));
  return parts;
}

/** The part of the image that the chosen output sees, over the image. */
async function showField({ layer, at }) {
  if (network.start.some(Boolean) || network.part.join() !== network.input.join()) return slices.set({ boxes: [] });
  try {
    const unit = await ask("fields/unit", [...words(), ["layer", layer], ["at", at.join(",")]], "unit");
    if (unit) slices.set({ boxes: unit.box ? [{ name: "exact", edges: unit.edges }] : [] });
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    slices.set({ boxes: [] }); // of layers whose field is not known
  }
}

/** Terms in the order of the kernel as an array of its shape. */
function reshape(terms, shape, pick) {
  let values = terms.map(pick);
  for (const size of [...shape].reverse().slice(0, -1)) {
    values = Array.from({ length: values.length / size }, (_, index) => values.slice(index * size, (index + 1) * size));
  }
  return values;
}

async function picture(name, pairs, label) {
  const found = await askPicture(name, pairs, `picture ${name}`);
  if (!found) return null;
  const canvas = html("canvas", { width: found.width, height: found.height, class: "panel-image", role: "img", "aria-label": label });
  canvas.getContext("2d").drawImage(found, 0, 0);
  return canvas;
}

async function showKernel() {
  const asked = layerWords("inner", "rank");
  const [found, all] = await Promise.all([ask("inside/kernel", asked, "tab"), picture("inside/kernels", layerWords(), "kernels of this channel from each input channel")]);
  if (!found) return null;
  tell(found.text);
  const ranks = Math.max(...found.ranks);
  const rank = html("input", { type: "range", min: 1, max: Math.max(1, ranks), value: found.rank, "aria-label": "rank", input: (event) => state.set({ rank: event.target.value }) });
  const inner = html("input", { type: "number", min: 0, value: found.inner, "aria-label": "input channel", input: (event) => /^\d+$/.test(event.target.value) && state.set({ inner: event.target.value }) });
  const spectra = found.spectra.map(({ mode, values }) => line(`Singular values (${mode}): ${values.map((value) => spelled(value)).join(", ")}`, "small"));
  const vectors = found.vectors.length > 1 ? [grid("nearest product of vectors", found.vectors.map((vector) => [...vector, ...Array(Math.max(...found.vectors.map((each) => each.length)) - vector.length).fill(null)]))] : [];
  return [line(found.text), html("div", { class: "bar" }, html("label", { class: "small" }, "from input channel ", inner), html("label", { class: "small" }, "rank ", rank)), ...spectra,
    html("div", { class: "grids" }, grid("kernel", found.values), grid(`nearest of rank ${found.rank}`, found.best), ...vectors),
    html("h3", {}, "All kernels of this channel"), all];
}

async function showPooling() {
  const found = await ask("inside/pooling", [...layerWords(), ...placeWords()], "tab");
  if (!found) return null;
  const flat = (place) => place.reduce((sum, index, axis) => sum * found.size[axis] + index, 0);
  const places = new Set(found.places);
  return [line(found.text), html("div", { class: "grids" }, grid("values, the largest of each window framed", found.values, { picked: (place) => places.has(flat(place)) }), ...found.grids.map(({ name, values }) => grid(name, values)))];
}

async function showUpsampling() {
  const found = await ask("inside/upsampling", [...layerWords(), ...placeWords()], "tab");
  if (!found) return null;
  const head = ["layer", "parameters", "MACs", "inputs counted by each output", "checkerboard, equal weights", "checkerboard at the start"].map((text) => html("th", { scope: "col" }, text));
  const rows = found.layers.map((row) => html("tr", { "data-layer": row.name }, html("th", { scope: "row" }, row.name), html("td", { class: "number" }, row.params), html("td", { class: "number" }, row.macs), html("td", {}, `${[...new Set(row.overlaps.map((each) => spelled(each)))].join(", ")}${row.even ? " (even)" : " (uneven)"}`), html("td", { class: "number" }, spelled(row.checkerboard)), html("td", { class: "number" }, spelled(row.checkerboard_start))));
  const responses = found.layers.filter(({ response }) => !Array.isArray(response[0]?.[0])).map(({ name, response }) => grid(name, response));
  return [line(found.text), html("div", { class: "grids" }, grid("values", found.values), ...found.grids.map(({ name, values }) => grid(name, values))),
    html("h3", {}, "Layers that up-sample, for a constant image"), html("div", { class: "scroll plain", tabindex: "0", "aria-label": "layers that up-sample" }, html("table", {}, html("thead", {}, html("tr", {}, head)), html("tbody", {}, rows))), html("h3", {}, "What they make of ones, with equal weights"), html("div", { class: "grids" }, responses)];
}

async function showDeformable() {
  const found = await ask("inside/deformable", [...layerWords("bend", "amount"), ...placeWords()], "tab");
  if (!found) return null;
  tell(found.text);
  const bend = html("select", { "aria-label": "offsets", change: (event) => state.set({ bend: event.target.value }) }, ["none", "wider", "shifted", "turned"].map((word) => html("option", { value: word }, word)));
  bend.value = state.get("bend");
  const amount = html("input", { type: "range", min: -300, max: 300, value: state.get("amount"), "aria-label": "size of the offsets", input: (event) => state.set({ amount: event.target.value }) });
  return [line(found.text), html("div", { class: "bar" }, html("label", { class: "small" }, "offsets ", bend), html("label", { class: "small" }, "size ", amount), html("output", { class: "small" }, spelled(Number(state.get("amount")) / 100))), samples(found),
    html("div", { class: "grids" }, grid("values", found.values))];
}

/** The grid's places of a kernel, and where its offsets lead; of a volume the slice through the middle. */
function samples({ samples: sampled, plain, values }) {
  const deep = sampled[0].length === 3;
  const flatten = (place) => (place.length === 1 ? [0, place[0]] : place.slice(-2));
  const kept = plain.map((_, index) => index).filter((index) => !deep || plain[index][0] === plain[Math.floor(plain.length / 2)][0]);
  const rows = deep ? values[plain[Math.floor(plain.length / 2)][0]] : Array.isArray(values[0]) ? values : [values];
  const pitch = 36;
  const middle = ([row, column]) => [(column + 0.5) * pitch, (row + 0.5) * pitch];
  const cells = rows.flatMap((row, y) => row.map((_, x) => svg("rect", { class: "cell", x: x * pitch + 1, y: y * pitch + 1, width: pitch - 2, height: pitch - 2, rx: 3 })));
  const arrows = kept.flatMap((index) => {
    const [from, to] = [middle(flatten(plain[index])), middle(flatten(sampled[index]))];
    return [svg("path", { d: `M${from}L${to}`, stroke: "var(--c1)", "stroke-width": 1.5 }), svg("circle", { cx: from[0], cy: from[1], r: 4, fill: "var(--c2)" }), svg("circle", { cx: to[0], cy: to[1], r: 5.5, fill: "var(--c1)", stroke: "var(--card)", "data-sample": sampled[index].join(",") })];
  });
  const [wide, tall] = [rows[0].length * pitch, rows.length * pitch];
  return svg("svg", { width: wide + 2 * pitch, height: tall + 2 * pitch, viewBox: `${-pitch} ${-pitch} ${wide + 2 * pitch} ${tall + 2 * pitch}`, role: "img", "aria-label": "places that the kernel samples" }, cells, arrows);
}

async function showShift() {
  const asked = layerWords("shift");
  const [found, three] = await Promise.all([ask("inside/shift", asked, "tab"), picture("inside/shifted", asked, "result for the shifted input, shifted result, difference")]);
  if (!found) return null;
  tell(found.text);
  const shift = html("input", { type: "range", min: 0, max: 16, value: found.shift, "aria-label": "shift of the input", input: (event) => state.set({ shift: event.target.value }) });
  const rows = found.rows.map((row) => html("tr", {}, html("th", { scope: "row" }, row.shift.join(" × ")), html("td", { class: "number" }, row.error.toExponential(2)), html("td", { class: "number" }, row.invariance.toExponential(2)), html("td", {}, row.exact ? "equivariant" : "broken")));
  const head = ["shift", "f(shift x) − shift f(x)", "f(shift x) − f(x)", ""].map((text) => html("th", { scope: "col" }, text));
  return [line(found.text), html("div", { class: "bar" }, html("label", { class: "small" }, "shift ", shift), html("output", { class: "small" }, String(found.shift))),
    html("p", { class: "small" }, "Left: the result for the shifted input. Middle: the result, shifted. Right: their difference."), three,
    html("div", { class: "scroll plain", tabindex: "0", "aria-label": "errors by shift" }, html("table", {}, html("thead", {}, html("tr", {}, head)), html("tbody", {}, rows)))];
}

async function showExplain() {
  const asked = words("method", "class");
  const found = await ask("inside/explain", asked, "tab");
  if (!found) return null;
  const method = html("select", { "aria-label": "method", change: (event) => state.set({ method: event.target.value }) }, found.methods.map((word) => html("option", { value: word }, word)));
  method.value = found.method;
  const target = html("select", { "aria-label": "class", change: (event) => state.set({ class: event.target.value }) }, html("option", { value: "" }, "likeliest"), network.classes.map((name) => html("option", { value: name }, name)));
  target.value = state.get("class");
  slices.set({ heat: { name: "inside/heat", words: asked } });
  const facts = Object.entries(found.maps).map(([name, each]) => line(`${name}: ${spelled(each.least)} to ${spelled(each.largest)} ${each.unit}, strongest at ${each.strongest.join(", ")}`, "small"));
  return [line(found.text), html("div", { class: "bar" }, html("label", { class: "small" }, "method ", method), html("label", { class: "small" }, "class ", target)), ...facts, line("The map lies over the image above.", "small")];
}

// ---- start --------------------------------------------------------------------------------------------------

function nextLayer(by) {
  const place = network.layers.findIndex(({ name }) => name === maps.layer) + by;
  const layer = network.layers[Math.min(network.layers.length - 1, Math.max(0, place))];
  if (layer) state.set({ ...fresh, layer: layer.name });
}

function nextChannel(by) {
  const next = Math.min(maps.channels - 1, Math.max(0, Number(state.get("channel")) + by));
  state.set({ channel: String(next), inner: "" });
}

/** Arrow keys over the sheet move the chosen output along rows and columns of what is shown. */
byId("sheet").addEventListener("keydown", (event) => {
  const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!by || !maps) return;
  event.preventDefault();
  event.stopPropagation();
  const before = spot ?? maps.tile.map((count) => Math.floor(count / 2));
  spot = before.map((place, axis) => Math.min(maps.tile[axis] - 1, Math.max(0, place + by[axis])));
  state.set({ at: `r${spot.join(",")}`, inner: "" });
});

async function start() {
  buildFields();
  buildTabs();
  const [catalogue, images] = await Promise.all([listNetworks(), listImages()]);
  fillNetworks(netSelect, catalogue, state.get("net") || catalogue.opened[0] || "resnet18");
  fillImages(imageSelect, images, state.get("image"));
  if (state.get("at").startsWith("r")) spot = state.get("at").slice(1).split(",").map(Number);
  await refresh();
}

onKey("l", () => nextLayer(1));
onKey("k", () => nextLayer(-1));
onKey("]", () => nextChannel(1));
onKey("[", () => nextChannel(-1));
state.on(refresh);
document.addEventListener("theme", () => slices.repaint());
start();
