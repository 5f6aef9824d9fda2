// Trainings: all in a list; one with curves, mistakes and commands; or several side by side.

import { Refusal, act, ask } from "./library/call.js";
import { byId, html, tell } from "./library/element.js";
import { figure } from "./library/figure.js";
import { Launcher } from "./library/launcher.js";
import { offerCopies, onKey, showError } from "./library/shell.js";
import { State } from "./library/state.js";
import { Table } from "./library/table.js";
import { CaseViewer, layersOf, legendOf } from "./library/case_viewer.js";

const state = new State({ run: "", case: "", cell: "", slice: "", over: "time", plane: "axial", label: "1", prediction: "1", difference: "0", opacity: "75", channel: "0", low: "", high: "" });
const readonly = document.body.dataset.readonly === "1";
const POLL_MS = 2000;
let list = null;
let page = null;

// ---- small parts --------------------------------------------------------------------------------------------

const badge = (text) => html("span", { class: `badge ${text}` }, text);
const button = (text, click, more = {}) => html("button", { type: "button", click, ...more }, text);
const section = (title, ...parts) => html("section", { class: "card", "aria-label": title }, html("h2", {}, title), parts);
const pairs = (rows) => html("dl", { class: "pairs" }, rows.map(({ name, text }) => [html("dt", {}, name.replaceAll("_", " ")), html("dd", {}, text)]));
const chosen = () => state.all("run");

function fold(title, content) {
  return html("details", { class: "card" }, html("summary", {}, title), content);
}

function overSwitch() {
  const select = html("select", { "aria-label": "horizontal axis", change: () => state.set({ over: select.value }) },
    [["time", "over time"], ["step", "over steps"]].map(([value, text]) => html("option", { value }, text)));
  select.value = state.get("over");
  return select;
}

/** Replace what a place shows, unless it shows the same already: what has the focus keeps it. */
function put(place, key, make) {
  const text = JSON.stringify(key);
  if (place.dataset.key === text) return;
  place.dataset.key = text;
  place.replaceChildren(...[make()].flat(3).filter(Boolean));
}

// ---- commands that run --------------------------------------------------------------------------------------

async function send(name, words) {
  try {
    const found = await act(`runs/${name}`, words);
    showError(null);
    await poll(true);
    return found;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    showError(error);
    return null;
  }
}

/** The state of a command: progress, what it printed, and a button that stops it. */
function showJob(place, job) {
  if (!job) return put(place, null, () => []);
  put(place, job, () => {
    const open = ["waiting", "running", "stopping"].includes(job.state);
    const words = [job.phase, job.fraction === null ? "" : `${Math.round(100 * job.fraction)} %`, job.figures].filter(Boolean).join(" · ");
    const bar = open ? html("progress", { max: 1, value: job.fraction, "aria-label": `progress of ${job.name}` }) : null;
    const stop = open && !readonly ? button(job.state === "stopping" ? "Stop at once" : "Stop", () => send("stop", [["number", job.number]])) : null;
    const more = html("details", { open: job.state === "failed" }, html("summary", {}, "What it printed"), html("pre", { tabindex: "0" }, job.lines.join("\n") || "nothing yet"));
    return html("div", { class: "job", "data-job": job.number },
      html("div", { class: "bar" }, badge(job.state), html("b", {}, job.name), html("span", { class: "soft" }, words), stop), bar, more, html("pre", { class: "command", tabindex: "0" }, job.command));
  });
}

// ---- the list of runs ---------------------------------------------------------------------------------------

function toggle(path, on) {
  const others = chosen().filter((each) => each !== path);
  openRuns(on ? [...others, path] : others);
}

function openRuns(paths) {
  state.set({ run: paths, case: "", cell: "", slice: "", channel: "0" }, true);
}

function showList() {
  const side = byId("side");
  const now = chosen();
  put(side, [list.runs, now, list.leave], () => {
    const items = list.runs.map((run) => {
      const told = [run.task, run.model, run.metric === null ? "" : `${run.metric_name} ${run.metric.toFixed(3)}`].filter(Boolean).join(" · ");
      const box = html("input", { type: "checkbox", checked: now.includes(run.path), "aria-label": `compare ${run.name}`, change: (event) => toggle(run.path, event.target.checked) });
      return html("li", { class: now.includes(run.path) ? "chosen" : "", "data-run": run.name }, box,
        html("div", {}, button(run.name, () => openRuns([run.path]), { title: run.path, "aria-current": now.length === 1 && now[0] === run.path ? "true" : null }), " ", badge(run.state)),
        html("div", { class: "small" }, told, html("br"), [run.data.split("/").at(-1), run.written].filter(Boolean).join(" · ")));
    });
    return [
      html("h2", {}, `${list.runs.length} run${list.runs.length === 1 ? "" : "s"}`),
      list.runs.length ? html("ul", { class: "runs-list" }, items) : html("p", { class: "soft" }, list.folders.length ? "No runs in the folders that were named." : "No folder was named: convoxel explore FOLDER shows the runs in it."),
      list.runs.length > 1 ? html("p", { class: "small" }, "Tick two or more to compare them.") : null,
      now.length ? button("Overview", () => openRuns([]), { title: "Start a training, exercises (o)" }) : null,
    ];
  });
}

// ---- one run ------------------------------------------------------------------------------------------------

class RunPage {
  constructor(path) {
    this.path = path;
    this.version = "";
    this.title = html("p", { class: "title" });
    this.lead = html("p", { class: "soft" });
    this.bar = html("div", { class: "bar" });
    this.job = html("div", {});
    this.cards = html("dl", { class: "cards" });
    this.notes = html("ul", { class: "notes", hidden: true });
    this.charts = html("div", { class: "charts", id: "charts" });
    this.casesPlace = html("div", {});
    this.rest = html("div", {});
    this.forms = html("div", {});
    this.element = html("div", {}, this.title, this.lead, this.bar, this.job, this.cards, this.notes,
      html("div", { class: "bar" }, html("h2", {}, "Curves"), overSwitch()), this.charts, this.casesPlace, this.rest, this.forms);
  }

  async update() {
    const found = await ask("runs/show", [["run", this.path], ["over", state.get("over")], ["version", this.version]], "show");
    if (!found) return;
    this.version = found.version;
    showJob(this.job, found.job);
    if (found.pending) {
      this.title.textContent = found.name;
      this.lead.textContent = "Its folder comes with the first checkpoint.";
      return;
    }
    this.showBar(found);
    if (found.same) return;
    this.found = found;
    this.title.textContent = found.name;
    this.lead.textContent = [found.task, found.model, found.data, found.fraction !== null && found.fraction < 1 ? `${Math.round(100 * found.fraction)} % trained` : "", found.written].filter(Boolean).join(" · ");
    this.cards.replaceChildren(...found.cards.map((card) => html("div", { class: card.main ? "main" : "" }, html("dt", {}, card.name), html("dd", {}, card.value, html("small", {}, card.note)))));
    this.notes.hidden = !found.warnings.length;
    this.notes.replaceChildren(...found.warnings.map((text) => html("li", {}, text)));
    const drawn = found.charts.map(({ svg }) => figure(svg));
    this.charts.replaceChildren(...(drawn.length ? drawn : [html("p", { class: "soft" }, "Curves come with the first validation.")]));
    this.showCases();
    put(this.rest, [found.plan, found.config], () => [
      found.plan.length ? fold("The plan of the run, with reasons", pairs(found.plan)) : null,
      fold("All settings", pairs(found.config)),
    ]);
    offerCopies(found.copies);
    if (list?.folders.length && !readonly) put(this.forms, list.folders, () => new Launcher({ send, ask, state, folders: list.folders }).predictForm(this.path));
  }

  showBar(found) {
    const busy = found.job && ["waiting", "running", "stopping"].includes(found.job.state);
    const key = [found.state, busy, this.found?.fraction];
    put(this.bar, key, () => [
      badge(found.state),
      found.state === "stopped" && !busy && !readonly ? button("Go on training", () => send("resume", [["run", this.path]])) : null,
      found.state === "running" && !busy ? html("span", { class: "soft" }, "It was started elsewhere; stop it there with Ctrl-C.") : null,
    ]);
  }

  // ---- images and confusions ----

  showCases() {
    const { cases, examples, confusion, evaluated } = this.found;
    put(this.casesPlace, [this.version], () => {
      if (!evaluated) return section("Images", html("p", { class: "soft" }, "The images and confusions come with the closing evaluation."));
      this.viewer = new CaseViewer(state, this.path, (step) => this.step(step));
      this.box = html("div", { class: "scroll", tabindex: "0", "aria-label": "images" });
      this.told = html("p", { class: "soft" });
      this.table = new Table(this.box, "images", (index) => state.set({ case: this.rows[index].cells.name, slice: "" }));
      this.gallery = this.showGallery(examples);
      return [
        section("Images, the worst first", this.told, html("div", { class: "viewer" }, this.box, this.viewer.element)),
        confusion ? section("Confusion", this.showConfusion(confusion)) : null,
        examples.pictures.length ? section("Examples that the run kept, the worst first", this.gallery) : null,
      ];
    });
    this.showRows(cases);
    this.fillCell();
    this.viewer?.show();
  }

  showRows({ columns, rows, told, count }) {
    if (!this.table) return;
    this.rows = rows;
    this.table.show(columns, rows);
    this.told.textContent = told ? `${count} image${count === 1 ? "" : "s"}: ${told}` : "Choose one to see what the network finds in it.";
    this.markRow();
  }

  markRow() {
    const index = this.rows?.findIndex((row) => row.cells.name === state.get("case")) ?? -1;
    this.table?.choose(index >= 0 ? [index] : []);
  }

  async fillCell() {
    const cell = state.get("cell");
    this.element.querySelectorAll("[data-cell]").forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.cell === cell)));
    if (cell === (this.cell ?? "")) return;
    this.cell = cell;
    const found = await ask("runs/cases", [["run", this.path], ["cell", cell]], "cases");
    if (!found) return;
    this.showRows(found);
    const first = found.rows[0]?.cells.name;
    if (cell && first) state.set({ case: first, slice: "" });
    tell(found.told ? `${found.count} images: ${found.told}` : "All images");
  }

  showConfusion({ words, names, rows, pairs: listed, head }) {
    const text = html("p", { class: "soft" }, words, rows.length ? " Choose a cell to see its images." : "");
    if (!rows.length) return [text, listed.length ? html("div", { class: "scroll" }, html("table", {}, html("thead", {}, html("tr", {}, head.map((each) => html("th", { scope: "col" }, each)))), html("tbody", {}, listed.map((row) => html("tr", {}, row.map((each) => html("td", {}, each))))))) : null];
    const body = rows.map((cells, row) => html("tr", {}, html("th", { scope: "row" }, names[row]), cells.map((cell, column) => {
      const where = `${row},${column}`;
      const empty = cell.title === "";
      const choose = button(cell.text, () => state.set({ cell: state.get("cell") === where ? "" : where }), { title: cell.title, disabled: empty, "data-cell": where, "aria-pressed": "false", "aria-label": cell.title || `${names[row]} predicted as ${names[column]}: none` });
      const place = html("td", {}, choose);
      if (cell.hue) place.style.backgroundColor = `rgba(${cell.hue},${cell.depth})`;
      return place;
    })));
    return [text, html("div", { class: "scroll" }, html("table", { class: "confusion" }, html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "true ↓ predicted →"), names.map((name) => html("th", { scope: "col" }, name)))), html("tbody", {}, body)))];
  }

  showGallery({ legend, pictures }) {
    const items = pictures.map((picture) => button([layersOf(picture, picture.words), picture.words, html("br"), html("span", { class: "soft" }, picture.told)], () => state.set({ case: picture.name, slice: "" })));
    this.galleryLayers = items.map((item) => item.querySelector(".layers"));
    return [legendOf(legend), html("div", { class: "gallery" }, items)];
  }

  step(by) {
    const rows = this.table?.order().map((index) => this.rows[index].cells.name) ?? [];
    if (!rows.length) return;
    const index = rows.indexOf(state.get("case"));
    state.set({ case: rows[Math.min(rows.length - 1, Math.max(0, index + by))], slice: "" });
  }

  changed(names) {
    if (names.has("over")) this.update();
    if (names.has("cell")) this.fillCell();
    if (names.has("case")) this.markRow();
    this.viewer?.changed(names);
  }
}

// ---- several runs -------------------------------------------------------------------------------------------

class ComparePage {
  constructor(paths) {
    this.paths = paths;
    this.version = "";
    this.jobs = html("div", {});
    this.figures = html("div", { class: "scroll" });
    this.notes = html("div", {});
    this.settings = html("div", {});
    this.charts = html("div", { class: "charts", id: "charts" });
    this.timed = button("Measure the time of one run", () => this.measure(), { disabled: readonly });
    this.says = html("span", { class: "soft" });
    this.element = html("div", {}, html("p", { class: "title" }, `${paths.length} runs side by side`), this.jobs, this.settings,
      section("Figures", this.figures, this.notes, html("div", { class: "bar" }, this.timed, this.says)),
      html("div", { class: "bar" }, html("h2", {}, "Curves"), overSwitch()), this.charts);
  }

  async update() {
    const found = await ask("runs/compare", [...this.paths.map((path) => ["run", path]), ["over", state.get("over")], ["version", this.version]], "compare");
    if (!found) return;
    this.version = found.version;
    const open = found.jobs.filter((job) => job.state !== "done");
    while (this.jobs.children.length > open.length) this.jobs.lastChild.remove();
    while (this.jobs.children.length < open.length) this.jobs.append(html("div", {}));
    open.forEach((job, index) => showJob(this.jobs.children[index], job));
    if (found.same || found.pending) return;
    this.found = found;
    this.showFigures();
    this.notes.replaceChildren(...found.rows.filter(({ text }) => text).map(({ text }) => html("p", { class: "small" }, text)));
    const head = html("thead", {}, html("tr", {}, ["what was changed", ...found.names].map((text) => html("th", { scope: "col" }, text))));
    put(this.settings, found.settings, () => section("What was changed", found.settings.length
      ? html("div", { class: "scroll" }, html("table", { class: "sheet" }, head, html("tbody", {}, found.settings.map(({ name, cells }) => html("tr", { class: "differs" }, html("th", { scope: "row" }, name), cells.map((cell) => html("td", {}, cell)))))))
      : html("p", { class: "soft" }, "Nothing: all settings are the same.")));
    this.charts.replaceChildren(...found.charts.map(({ svg }) => figure(svg)));
    offerCopies(found.copies);
  }

  showFigures() {
    const rows = this.found.rows.filter(({ cells }) => cells);
    if (this.times) rows.push({ name: `time of one run here (${[...new Set(this.times.inputs)].join(", ")})`, cells: this.times.times, differs: true });
    const head = html("tr", {}, ["", ...this.found.names].map((text) => html("th", { scope: "col" }, text)));
    this.figures.replaceChildren(html("table", { class: "sheet", id: "figures" }, html("thead", {}, head), html("tbody", {}, rows.map(({ name, cells, differs }) =>
      html("tr", { class: differs ? "differs" : "", "data-figure": name }, html("th", { scope: "row" }, name), cells.map((cell) => html("td", {}, cell)))))));
  }

  async measure() {
    this.timed.disabled = true;
    this.says.textContent = "Compiling and measuring …";
    this.times = await send("measure", this.paths.map((path) => ["run", path]));
    this.says.textContent = "";
    this.timed.disabled = readonly;
    if (this.times && this.found) this.showFigures();
  }

  changed(names) {
    if (names.has("over")) this.update();
  }
}

// ---- overview: start something ------------------------------------------------------------------------------

class StartPage {
  constructor() {
    this.jobs = html("div", {});
    this.ends = html("div", {});
    this.forms = html("div", { class: "forms" });
    this.element = html("div", {}, html("p", { class: "title" }, "Trainings"),
      html("p", { class: "soft" }, "Choose a run on the left, or tick several to compare them."), this.forms, this.jobs, this.ends);
    this.launcher = null;
  }

  async update() {
    if (!list) return;
    if (readonly || !list.folders.length) {
      put(this.forms, "none", () => html("p", {}, readonly ? "The explorer was started with --readonly: nothing is started here." : "To start trainings here, name a folder for them: convoxel explore FOLDER."));
      return;
    }
    if (!this.launcher) {
      const offered = await ask("runs/settings", [], "settings");
      if (!offered) return;
      this.launcher = new Launcher({ send, ask, state, folders: list.folders, offered, open: openRuns });
      this.forms.replaceChildren(this.launcher.exercise(), this.launcher.training());
    }
    while (this.jobs.children.length > list.jobs.length) this.jobs.lastChild.remove();
    while (this.jobs.children.length < list.jobs.length) this.jobs.append(html("div", {}));
    list.jobs.forEach((job, index) => showJob(this.jobs.children[index], job));
    put(this.ends, [list.leave, list.jobs.length > 0], () => {
      const box = html("input", { type: "checkbox", checked: list.leave, change: () => send("choose", [["leave", box.checked ? "1" : "0"]]) });
      return html("p", {}, html("label", { class: "switch" }, box, " let running commands go on when the explorer ends"),
        html("br"), html("span", { class: "small" }, "Otherwise they stop then, a training with a checkpoint. What waits does not start. One command runs at a time."));
    });
  }

  changed() {
    this.launcher?.changed();
  }
}

// ---- polling ------------------------------------------------------------------------------------------------

function arrange() {
  const paths = chosen();
  const key = paths.join("\n");
  if (page?.key === key) return;
  page = paths.length === 0 ? new StartPage() : paths.length === 1 ? new RunPage(paths[0]) : new ComparePage(paths);
  page.key = key;
  byId("page").replaceChildren(page.element);
  if (!paths.length) offerCopies([{ name: "Command", text: "convoxel explore FOLDER" }]);
}

let timer = null;
let round = 0;

async function poll(now = false) {
  clearTimeout(timer);
  if (!document.hidden || now) {
    try {
      // The list of all runs is asked for less often than the one that is looked at.
      if (now || !chosen().length || ++round % 3 === 0) list = (await ask("runs/catalogue", [], "catalogue")) ?? list;
      if (list) showList();
      const current = page;
      await current.update();
      if (current === page) showError(null);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      showError(error);
    }
  }
  clearTimeout(timer);
  timer = setTimeout(poll, POLL_MS);
}

state.on((names) => {
  if (names.has("run")) {
    arrange();
    poll(true);
  } else page?.changed(names);
});
document.addEventListener("visibilitychange", () => !document.hidden && poll(true));

const flip = (name) => () => state.set({ [name]: state.get(name) === "1" ? "0" : "1" });
onKey("n", () => page.step?.(1));
onKey("p", () => page.step?.(-1));
onKey("l", flip("label"));
onKey("m", flip("prediction"));
onKey("d", flip("difference"));
onKey("w", () => page.viewer?.worst());
onKey("0", () => page.viewer?.usualWindow());
onKey("o", () => openRuns([]));
onKey("ArrowLeft", () => page.viewer?.move(-1));
onKey("ArrowRight", () => page.viewer?.move(1));

arrange();
poll(true);
