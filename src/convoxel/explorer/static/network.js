// Networks: one, or two side by side, each with its options, graph and table.

import { Refusal, act, ask } from "./library/call.js";
import { byId, html, tell } from "./library/element.js";
import { foldFields } from "./library/field.js";
import { Graph } from "./library/graph.js";
import { fillNetworks, listNetworks } from "./library/picker.js";
import { offerCopies, onKey, showError } from "./library/shell.js";
import { State } from "./library/state.js";
import { Table } from "./library/table.js";

const state = new State({ heat: "none" });
const readonly = document.body.dataset.readonly === "1";
const panels = [];
const METRICS = [["none", "plain"], ["macs", "MACs"], ["bytes", "memory"], ["params", "params"], ["time", "time"], ["error", "error"]];

/** One network; the names of its words begin with `prefix`. */
class Panel {
  constructor(prefix) {
    this.prefix = prefix;
    this.needle = "";
    this.select = html("select", { "aria-label": "network", change: () => this.open(this.select.value) });
    this.shape = html("input", { spellcheck: "false", autocomplete: "off", "aria-label": "input shape", placeholder: "n,channels,sizes", input: () => this.later(() => this.set({ shape: this.shape.value.trim() })) });
    this.controls = html("div", { class: "controls" });
    this.side = html("form", { class: "side", "aria-label": "Options of the network", submit: (event) => event.preventDefault() },
      html("div", { class: "field" }, html("span", { class: "small" }, "network"), this.select),
      html("div", { class: "field" }, html("span", { class: "small" }, "input"), this.shape), this.controls);
    this.title = html("p", { class: "title" });
    this.totals = html("dl", { class: "totals" });
    this.notes = html("ul", { class: "notes", hidden: true });
    this.search = html("input", { type: "search", placeholder: "search (/)", "aria-label": "search layers", input: () => this.find(), keydown: (event) => event.key === "Enter" && this.find(true) });
    this.heatBar = html("div", { class: "segments", role: "radiogroup", "aria-label": "colour by" });
    this.depth = html("select", { "aria-label": "depth of the graph", change: () => this.set({ depth: this.depth.value, open: [], close: [] }) });
    this.measureButton = html("button", { type: "button", disabled: readonly, title: readonly ? "started with --readonly" : "Run it here: time and algorithm of every step", click: () => this.measure() }, "Measure times");
    this.errorButton = html("button", { type: "button", disabled: readonly, title: readonly ? "started with --readonly" : "Compare every layer in float32 with float64", click: () => this.compareErrors() }, "Measure errors");
    this.place = html("div", { class: "graph" });
    this.box = html("div", { class: "scroll", tabindex: "0", "aria-label": "layers" });
    this.says = html("p", { class: "soft" });
    const body = html("div", {}, this.title, this.totals, this.notes,
      html("div", { class: "bar" }, this.search, html("label", { class: "small" }, "depth ", this.depth), this.heatBar, this.measureButton, this.errorButton), this.says, this.place, this.box);
    this.element = html("section", { class: "panel", "aria-label": prefix ? "second network" : "network" }, this.side, body);
    foldFields(this.side, "Network");
    this.graph = new Graph(this.place, { onChoose: (node) => this.chooseNode(node), onOpen: (path) => this.toggle(path, true), onClose: (path) => this.toggle(path, false) });
    this.table = new Table(this.box, "layers", (index) => this.chooseRow(index));
    this.buildHeat();
  }

  buildHeat() {
    this.radios = METRICS.map(([value, text]) => {
      const input = html("input", { type: "radio", name: `heat${this.prefix}`, value, change: () => state.set({ heat: value }) });
      return [input, html("label", {}, input, text)];
    });
    this.heatBar.append(...this.radios.map(([, label]) => label));
  }

  showHeat() {
    const metric = state.get("heat");
    this.radios.forEach(([input]) => (input.checked = input.value === metric));
    if (metric === "time" && this.found && !this.found.measured) this.says.textContent = "Times are not measured yet.";
    if (metric === "error" && this.found && !this.found.errors) this.says.textContent = "Errors are not measured yet.";
    this.graph.heat(metric);
  }

  // ---- words ----

  name(word) {
    return this.prefix + word;
  }

  set(changes, push = false) {
    state.set(Object.fromEntries(Object.entries(changes).map(([name, value]) => [this.name(name), value])), push);
  }

  words(...names) {
    return state.pairs().filter(([name]) => names.some((word) => name === this.name(word))).map(([name, value]) => [name.slice(this.prefix.length), value]);
  }

  network() {
    return this.words("net", "shape", "set");
  }

  open(word) {
    this.opened = null;
    this.set({ net: word, shape: "", set: [], open: [], close: [], depth: "" }, true);
  }

  assign(name, value, usual) {
    const others = state.all(this.name("set")).filter((each) => !each.startsWith(`${name}=`));
    const more = name === "dims" || name === "in_channels" ? { shape: "" } : {};
    this.set({ set: value === usual ? others : [...others, `${name}=${value}`], ...more });
  }

  toggle(path, open) {
    const opened = new Set(state.all(this.name("open")));
    const closed = new Set(state.all(this.name("close")));
    (open ? opened : closed).add(path);
    (open ? closed : opened).delete(path);
    this.set({ open: [...opened], close: [...closed] });
  }

  later(act) {
    clearTimeout(this.timer);
    this.timer = setTimeout(act, 250);
  }

  // ---- answers ----

  /** Ask for everything; the graph and the table come as they are ready. */
  async refresh() {
    const key = JSON.stringify(this.network());
    this.opened ??= this.network();
    // Python knows which network is shown first; the list of all is for choosing.
    listed.then((all) => this.showSelect(all, state.get(this.name("net")) || all.opened[0] || "resnet18"));
    const slot = (name) => `${name}${this.prefix}`;
    const graph = ask("network/graph", [...this.network(), ...this.words("depth", "open", "close")], slot("graph"));
    const described = key === this.shown ? this.found : ask("network/describe", this.network(), slot("describe"));
    this.element.setAttribute("aria-busy", "true");
    try {
      const drawn = await graph;
      if (drawn) this.showGraph(drawn);
      const found = await described;
      if (found && found !== this.found) this.show(found, key);
      showError(null, [this.place, this.box, this.totals]);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      Promise.resolve(described).catch(() => {});
      showError(error, [this.place, this.box, this.totals]);
    } finally {
      this.element.removeAttribute("aria-busy");
    }
  }

  showGraph(drawn) {
    const same = this.word === this.current();
    this.graph.draw(drawn, same && this.drawnBefore);
    this.word = this.current();
    this.drawnBefore = true;
    const options = Array.from({ length: drawn.deepest }, (_, index) => html("option", { value: String(index + 1) }, String(index + 1)));
    this.depth.replaceChildren(...options);
    this.depth.value = String(drawn.depth);
    this.showHeat();
    this.find();
    this.mark();
  }

  current() {
    return `${state.get(this.name("net"))} ${state.get(this.name("shape"))}`;
  }

  show(found, key) {
    this.found = found;
    this.shown = key;
    this.title.textContent = found.title;
    this.showTotals(found.totals.map(({ name, text }) => ({ name, after: text, same: true })));
    const notes = [...found.remarks, ...found.warnings, ...(found.geometry ? [`Images: ${found.geometry}`] : [])];
    this.notes.hidden = !notes.length;
    this.notes.replaceChildren(...notes.map((text) => html("li", {}, text)));
    this.says.textContent = found.measured?.text ?? "";
    if (document.activeElement !== this.shape) this.shape.value = state.get(this.name("shape")) || found.input;
    this.showControls(found.controls);
    this.showTable();
    if (!this.prefix) offerCopies(found.copies);
    this.compareWithOpened();
  }

  showSelect(all, now) {
    if (this.select.value !== now) fillNetworks(this.select, all, now);
  }

  showTotals(rows) {
    this.totals.replaceChildren(...rows.map(({ name, before, after, change, same }) =>
      html("div", { "data-total": name }, html("dt", {}, name), html("dd", {}, same ? null : html("span", { class: "before" }, before), after, same ? null : html("span", { class: "change" }, change)))));
  }

  showControls(controls) {
    const key = controls.map(({ name }) => name).join();
    if (this.built !== key) {
      this.built = key;
      this.inputs = new Map();
      this.controls.replaceChildren(...controls.map((control) => this.control(control)));
    }
    for (const { name, value } of controls) {
      const inputs = this.inputs.get(name);
      for (const input of inputs) {
        if (input.type === "checkbox") input.checked = value === "true";
        else if (document.activeElement !== input) input.value = value;
      }
    }
  }

  control({ name, kind, choices, range, help, default: usual }) {
    const id = `${this.prefix}${name}`;
    const assign = (value) => this.assign(name, value, usual);
    let inputs = [];
    if (kind === "switch") inputs = [html("input", { type: "checkbox", id, change: (event) => assign(String(event.target.checked)) })];
    else if (kind === "choice") inputs = [html("select", { id, change: (event) => assign(event.target.value) }, choices.map((word) => html("option", { value: word }, word)))];
    else {
      inputs = [html("input", { id, spellcheck: "false", autocomplete: "off", input: (event) => event.target.value.trim() && this.later(() => assign(event.target.value.trim())) })];
      const slide = (event) => {
        inputs[0].value = event.target.value;
        assign(event.target.value);
      };
      if (range.length) inputs.push(html("input", { type: "range", min: range[0], max: range[1], step: range[2], "aria-label": name, input: slide }));
    }
    this.inputs.set(name, inputs);
    return html("div", { class: "field", title: help }, html("label", { for: id }, name.replaceAll("_", " ")), inputs);
  }

  showTable() {
    const measured = this.found.measured?.rows;
    const errors = this.found.errors;
    const more = measured ? [{ name: "time", title: "ms", number: true, help: "time of one run here" }, { name: "algorithm", title: "algorithm", help: "chosen for this machine" }] : [];
    if (errors) more.push({ name: "error", title: "error", number: true, help: "relative error in float32" });
    const rows = this.found.rows.map((row, index) => {
      const time = measured?.[index];
      return {
        cells: { ...row.cells, time: time?.shown ?? "", algorithm: time?.algorithm ?? "", error: errors?.rows[index] ?? "" },
        values: { ...row.values, ...(measured ? { time: time?.time_s ?? 0 } : {}), ...(errors ? { error: errors.numbers[index] ?? 0 } : {}) },
        mark: this.changes?.[row.cells.layer],
      };
    });
    this.table.show([...this.found.columns, ...more], rows);
  }

  // ---- changes ----

  /** Beside the network as it was opened: what has been changed since. */
  async compareWithOpened() {
    this.changes = null;
    if (isTwo()) return compareBoth();
    const words = this.network();
    if (JSON.stringify(words) !== JSON.stringify(this.opened)) {
      try {
        const found = await ask("network/compare", [...words, ...this.opened.map(([name, value]) => [`a.${name}`, value])], `compare${this.prefix}`);
        if (!found) return;
        this.changes = found.rows;
        this.showTotals(found.totals);
        this.showTable();
        const count = Object.keys(found.rows).length;
        tell(found.same ? "Nothing changed" : `${count} layers are new or changed, ${found.gone.length} are gone`);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
      }
    }
    this.mark();
  }

  mark() {
    const rows = this.found?.rows ?? [];
    this.graph.mark((node) => Boolean(this.changes) && node.rows.some((row) => this.changes[rows[row]?.cells.layer]));
  }

  // ---- choosing ----

  chooseNode(node) {
    this.graph.choose(node ? [node.name] : []);
    this.table.choose(node?.rows ?? [], true);
    if (node) tell(`${node.name}, ${node.what}, ${node.shape}`);
  }

  chooseRow(index) {
    this.table.choose([index]);
    const nodes = this.graph.found?.nodes.filter((node) => node.rows.includes(index)) ?? [];
    this.graph.choose(nodes.map(({ name }) => name), true);
  }

  find(centre = false) {
    const needle = this.search.value.trim();
    this.table.filter(needle);
    const hits = this.graph.search(needle);
    if (centre && hits.length) {
      this.hit = ((this.hit ?? -1) + 1) % hits.length;
      this.chooseNode(hits[this.hit]);
      this.graph.choose([hits[this.hit].name], true);
    }
    if (!centre) this.hit = -1;
  }

  async measure() {
    this.measureButton.disabled = true;
    this.says.textContent = "Compiling and measuring …";
    try {
      const key = this.shown;
      const found = await act("network/measure", this.network());
      if (!found || key !== this.shown) return;
      this.found = { ...this.found, measured: found };
      this.says.textContent = found.text;
      this.showTable();
      state.set({ heat: "time" });
      await this.refresh();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.says.textContent = error.message;
    } finally {
      this.measureButton.disabled = readonly;
    }
  }

  async compareErrors() {
    this.errorButton.disabled = true;
    const say = async () => {
      const { share } = (await ask("network/progress", this.network(), `progress${this.prefix}`).catch(() => null)) ?? {};
      if (clock) this.says.textContent = `Comparing layers with float64 … ${share ? `${Math.round(100 * share)} %` : ""}`;
    };
    let clock = setInterval(say, 700);
    const end = () => (clearInterval(clock), (clock = 0)); // an answer may still be under way
    say();
    try {
      const key = this.shown;
      const found = await act("network/errors", this.network());
      end();
      if (!found || key !== this.shown) return;
      this.found = { ...this.found, errors: found };
      this.says.textContent = found.text;
      this.showTable();
      state.set({ heat: "error" });
      await this.refresh();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.says.textContent = error.message;
    } finally {
      end();
      this.errorButton.disabled = readonly;
    }
  }
}

// ---- two networks -------------------------------------------------------------------------------------------

const isTwo = () => Boolean(state.get("b.net"));

function arrange() {
  const wanted = isTwo() ? 2 : 1;
  while (panels.length < wanted) panels.push(new Panel(panels.length ? "b." : ""));
  panels.length = wanted;
  byId("panels").classList.toggle("two", wanted === 2);
  byId("panels").replaceChildren(...panels.map((panel) => panel.element));
  beside.textContent = wanted === 2 ? "One network" : "Compare with …";
  beside.setAttribute("aria-pressed", String(wanted === 2));
}

function toggleBeside() {
  if (isTwo()) state.set({ "b.net": "", "b.shape": "", "b.set": [], "b.open": [], "b.close": [], "b.depth": "", joint: "", "j.open": [], "j.close": [] }, true);
  else state.set({ "b.net": panels[0].found?.net ?? "resnet18", "b.set": state.all("set"), "b.shape": state.get("shape") }, true);
}

/** Both networks as one graph, below the figures of both. */
let jointGraph = null;
const jointPlace = html("div", { class: "graph joint", hidden: true });

async function showJoint(words) {
  jointPlace.hidden = state.get("joint") !== "1";
  if (jointPlace.hidden) return;
  const toggle = (open) => (path) => {
    const [to, from] = open ? ["j.open", "j.close"] : ["j.close", "j.open"];
    state.set({ [to]: [...new Set([...state.all(to), path])], [from]: state.all(from).filter((each) => each !== path) });
  };
  jointGraph ??= new Graph(jointPlace, { onChoose: (node) => jointGraph.choose(node ? [node.name] : []), onOpen: toggle(true), onClose: toggle(false) });
  const parts = ["open", "close"].flatMap((name) => state.all(`j.${name}`).map((path) => [name, path]));
  const found = await ask("network/joint", [...words, ...parts]);
  if (found) jointGraph.draw(found, parts.length);
}

async function compareBoth() {
  const place = byId("comparison");
  place.hidden = !isTwo();
  if (!isTwo()) return;
  const words = [...panels[1].network(), ...panels[0].network().map(([name, value]) => [`a.${name}`, value])];
  try {
    const found = await ask("network/compare", words, "both");
    if (!found) return;
    const rows = found.totals.map(({ name, before, after, change }) => html("tr", {}, html("th", { scope: "row" }, name), html("td", {}, before), html("td", {}, after), html("td", { class: "change" }, change)));
    const names = found.names.map((name, index) => [name, ...panels[index].network().filter(([word]) => word === "set").map(([, text]) => text)].join(", "));
    const head = ["", ...names, "change"].map((text) => html("th", { scope: "col" }, text));
    panels[0].changes = null;
    panels[1].changes = found.rows;
    panels.forEach((panel) => panel.found && (panel.showTable(), panel.mark()));
    const box = html("input", { type: "checkbox", id: "joint", checked: state.get("joint") === "1", change: () => state.set({ joint: box.checked ? "1" : "" }) });
    const more = html("label", { class: "small switch" }, box, "one graph of both: ", html("span", { class: "state added" }, "added"), html("span", { class: "state changed" }, "changed"), html("span", { class: "state removed" }, "removed"));
    place.replaceChildren(html("h2", {}, "Side by side"), more, jointPlace, html("div", { class: "scroll" }, html("table", {}, html("thead", {}, html("tr", {}, head)), html("tbody", {}, rows))));
    await showJoint(words);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    place.replaceChildren(html("p", {}, error.message));
  }
}

// ---- start --------------------------------------------------------------------------------------------------

const beside = html("button", { type: "button", id: "beside", title: "Two networks side by side (b)", click: toggleBeside });
document.querySelector(".tools").prepend(beside);

state.on((names) => {
  if ([...names].every((name) => name === "heat")) return panels.forEach((panel) => panel.showHeat());
  if ([...names].every((name) => name === "joint" || name.startsWith("j."))) return compareBoth();
  const two = panels.length === 2;
  if (two !== isTwo()) {
    arrange();
    compareBoth();
    panels[0].shown = null;
  }
  for (const panel of panels) {
    const own = [...names].filter((name) => name.startsWith("b.") === Boolean(panel.prefix));
    if (own.length && own.some((name) => name !== "heat")) panel.refresh();
  }
});

const first = () => panels.find((panel) => panel.element.contains(document.activeElement)) ?? panels[0];
onKey("/", () => first().search.focus());
onKey("b", toggleBeside);
onKey("+", () => first().graph.view.zoom(1.3));
onKey("-", () => first().graph.view.zoom(1 / 1.3));
onKey("0", () => first().graph.fit());
onKey("ArrowLeft", () => first().graph.view.pan(60, 0));
onKey("ArrowRight", () => first().graph.view.pan(-60, 0));
onKey("ArrowUp", () => first().graph.view.pan(0, 60));
onKey("ArrowDown", () => first().graph.view.pan(0, -60));
const listed = listNetworks();
arrange();
panels.forEach((panel) => panel.refresh());
