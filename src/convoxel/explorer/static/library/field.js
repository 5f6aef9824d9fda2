// Fields that show and change one name of a state.

import { html } from "./element.js";

let number = 0;

function row(label, control, more = [], help = "") {
  const id = control.id || (control.id = `field${++number}`);
  return html("div", { class: "field", title: help }, html("label", { for: id }, label), control, ...more);
}

/** A text; with `range` [min, max] also a slider, which sets all axes alike. Texts that are not its `own` are not shown. */
export function textField(state, name, label, { range = null, help = "", shown = null, own = () => true } = {}) {
  const input = html("input", { spellcheck: "false", autocomplete: "off", name });
  const slider = range && html("input", { type: "range", min: range[0], max: range[1], "aria-label": `${label}, all axes` });
  const show = () => {
    if (document.activeElement !== input) input.value = own(state.get(name)) ? state.get(name) : "";
    const first = parseInt(state.get(name), 10);
    if (slider) slider.value = Number.isNaN(first) ? range[0] : first;
  };
  input.addEventListener("input", () => input.value.trim() && state.set({ [name]: input.value.trim() }));
  input.addEventListener("blur", show);
  slider?.addEventListener("input", () => {
    state.set({ [name]: shown ? shown(slider.value) : slider.value });
    input.value = state.get(name);
  });
  state.on(show);
  show();
  return row(label, input, slider ? [slider] : [], help);
}

/** One of a few words; `options` are pairs of a word and its name. */
export function choiceField(state, name, label, options, help = "") {
  const select = html("select", { name }, options.map(([value, text]) => html("option", { value }, text)));
  const show = () => {
    const value = state.get(name);
    // A value that is none of the words, such as a padding in numbers, is shown as it is.
    const other = select.querySelector("[data-other]");
    if (!options.some(([word]) => word === value)) {
      if (other) other.value = other.textContent = value;
      else select.append(html("option", { value, "data-other": "1" }, value));
    } else other?.remove();
    select.value = value;
  };
  select.addEventListener("change", () => state.set({ [name]: select.value }));
  state.on(show);
  show();
  return row(label, select, [], help);
}

/** A box that is ticked or not: "1" or "0". */
export function bindSwitch(state, name, box) {
  const show = () => (box.checked = state.get(name) === "1");
  box.addEventListener("change", () => state.set({ [name]: box.checked ? "1" : "0" }));
  state.on(show);
  show();
}

/** Fields that fold away: open where there is room for them. */
export function foldFields(form, title = "Options") {
  const open = !matchMedia("(max-width: 820px)").matches;
  const fold = html("details", { class: form.className, open }, html("summary", {}, title));
  form.className = "fields";
  form.replaceWith(fold);
  fold.append(form);
  return fold;
}

export function switchField(state, name, label, help = "") {
  const box = html("input", { type: "checkbox" });
  bindSwitch(state, name, box);
  return row(label, box, [], help);
}
