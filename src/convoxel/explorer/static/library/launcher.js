// Forms that start a training, the two of an exercise, or a prediction. Python checks every word and says the command.

import { Refusal } from "./call.js";
import { html } from "./element.js";

let number = 0;

const input = (name, value = "", more = {}) => html("input", { name, value, spellcheck: "false", autocomplete: "off", ...more });
const select = (name, options) => html("select", { name }, options.map(([value, text]) => html("option", { value }, text)));

function row(label, control, help = "") {
  control.id = `launch${++number}`;
  return html("div", { class: "field", title: help }, html("label", { for: control.id }, label), control);
}

/** The words of a form: each line of its settings is one of its own. */
function wordsOf(form) {
  const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);
  return [...new FormData(form)].flatMap(([name, value]) => (name === "settings" ? lines(value).map((line) => ["set", line]) : [[name, value]]));
}

export class Launcher {
  /** send(name, words) → answer; folders for new runs; offered: data, models and words; open(paths). */
  constructor({ send, ask, folders, offered = null, open = () => {} }) {
    Object.assign(this, { send, ask, folders, offered, open, forms: [] });
  }

  place() {
    return this.folders.length > 1 ? row("into", select("folder", this.folders.map((each) => [each, each]))) : html("input", { type: "hidden", name: "folder", value: this.folders[0] });
  }

  data() {
    const known = this.offered.data.map(({ path, name, task }) => [path, `${name} (${task})`]);
    const list = html("datalist", { id: `data${++number}` }, known.map(([value, text]) => html("option", { value }, text)));
    return [row("data", input("data", known[0]?.[0] ?? "", { list: list.id, required: true }), "a folder below those that were named, or a bundled set"), list];
  }

  epochs() {
    return row("or epochs", input("epochs", "", { inputmode: "numeric" }), "so many epochs, in place of minutes");
  }

  settings(title) {
    const help = "NAME=VALUE, one a line, as of convoxel train --set";
    return row(title, html("textarea", { name: "settings", rows: 2, spellcheck: "false", placeholder: "model_options.norm=instance", title: help }), help);
  }

  task(form) {
    const path = form.elements.data.value;
    return this.offered.data.find((each) => each.path === path)?.task;
  }

  /** A form that shows its command while it is filled in, and starts it. */
  form(title, intro, fields, { button, words, name, after, preview = true }) {
    const says = html("p", { class: "small", role: "status" });
    const command = html("pre", { class: "command", tabindex: "0", "aria-label": "the same as commands" });
    const start = html("button", {}, button);
    const form = html("form", { class: "card", "aria-label": title, autocomplete: "off" }, html("h2", {}, title), intro ? html("p", { class: "soft" }, intro) : null, fields, html("div", { class: "bar" }, start), says, preview ? command : null);
    const slot = `plan ${title}`;
    let timer = null;
    const look = () => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        if (!form.isConnected) return;
        try {
          const found = await this.ask("runs/plan", words(form), slot);
          if (!found) return;
          command.textContent = found.commands.join("\n");
          says.textContent = "";
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          says.textContent = error.message;
        }
      }, 250);
    };
    if (preview) form.addEventListener("input", look);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      start.disabled = true;
      const found = await this.send(name, words(form));
      start.disabled = false;
      if (found) after?.(found);
    });
    this.forms.push(look);
    if (preview) queueMicrotask(look);
    return form;
  }

  changed() {}

  /** Change one word, train twice, see both. */
  exercise() {
    const word = select("word", []);
    const values = [input("value", "", { required: true }), input("value", "", { required: true })];
    const choices = html("datalist", { id: `values${++number}` });
    values.forEach((each) => each.setAttribute("list", choices.id));
    const task = select("task", [["segment", "segment"], ["classify", "classify"]]);
    const fields = [this.data(), row("task", task), row("word to change", word), row("first", values[0]), row("second", values[1]), choices,
      row("minutes each", input("minutes", "2", { inputmode: "decimal" })), this.epochs(), row("name", input("name", "exercise", { required: true })), this.settings("other settings"), this.place()];
    const form = this.form("Exercise: change one word", "Train the same network twice for two minutes, with one word changed, and see both side by side.", fields, {
      button: "Train both", name: "start", after: ({ runs }) => this.open(runs),
      words: wordsOf,
    });
    const show = () => {
      const known = this.offered.words.filter(({ tasks }) => tasks.includes(task.value));
      const before = word.value;
      word.replaceChildren(...known.map((each) => html("option", { value: each.word }, `${each.title} (${each.word})`)));
      if (known.some((each) => each.word === before)) word.value = before;
      fill();
    };
    const fill = () => {
      const found = this.offered.words.find((each) => each.word === word.value);
      const offered = word.value === "model" ? this.offered.models[task.value] : found?.values ?? [];
      choices.replaceChildren(...offered.map((value) => html("option", { value })));
      const usual = word.value === "model" ? { segment: ["unet", "unet3d_paper"], classify: ["course_vgg", "resnet18"] }[task.value].map((name, index) => (offered.includes(name) ? name : offered[index])) : offered;
      values.forEach((each, index) => (each.value = usual[index] ?? ""));
    };
    const data = form.elements.data;
    data.addEventListener("input", () => {
      const found = this.task(form);
      if (found && found !== task.value) {
        task.value = found;
        show();
      }
    });
    task.addEventListener("input", show);
    word.addEventListener("input", fill);
    task.value = this.task(form) ?? "segment";
    show();
    word.value = task.value === "segment" ? "levels" : "model";
    fill();
    return form;
  }

  training() {
    const fields = [this.data(), row("task", select("task", ["segment", "classify", "regress"].map((each) => [each, each]))),
      row("minutes", input("minutes", "10", { inputmode: "decimal" })), this.epochs(), row("name", input("name", "run", { required: true })), this.settings("settings"), this.place()];
    const form = this.form("Train", "What is not said is chosen from the data.", fields, {
      button: "Start training", name: "start", after: () => this.open([]),
      words: wordsOf,
    });
    form.elements.data.addEventListener("input", () => {
      const found = this.task(form);
      if (found) form.elements.task.value = found;
    });
    form.elements.task.value = this.task(form) ?? "segment";
    return form;
  }

  predictForm(run) {
    const fields = [row("images", input("input", "", { required: true, placeholder: `${this.folders[0]}/images` }), "an image, or a folder of them, below the folders that were named"),
      row("name of the new folder", input("name", "predictions", { required: true })), this.place()];
    return this.form("Predict images", "", fields, { button: "Predict", name: "predict", preview: false, words: (each) => [["run", run], ...new FormData(each)] });
  }
}
