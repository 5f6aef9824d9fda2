// What a page looks at: a network with options, and an image of the folders that the explorer was started with.

import { ask } from "./call.js";
import { html } from "./element.js";

/** The networks that were opened at the start, those of their folders, and those of the zoo. */
export async function listNetworks() {
  const catalogue = await ask("network/catalogue", []);
  return { ...catalogue, found: await look(catalogue.roots) };
}

/** Networks in the folders that were named at the start, two levels deep. */
async function look(entries, depth = 2) {
  const found = [];
  for (const entry of entries) {
    if (entry.kind === "run" || entry.kind === "network") found.push(entry.path);
    else if (entry.kind === "folder" && depth) {
      const inner = await ask("session/entries", [["path", entry.path]], entry.path);
      found.push(...(await look(inner?.entries ?? [], depth - 1)));
    }
  }
  return found;
}

const group = (label, options) => (options.length ? html("optgroup", { label }, options.map(([value, text]) => html("option", { value }, text))) : null);

/** Fill a selection of networks, and choose `now`. */
export function fillNetworks(select, catalogue, now) {
  const zoo = (task) => catalogue.zoo.filter((each) => each.task === task).map(({ name }) => [name, name]);
  const words = [...new Set([...catalogue.opened, ...catalogue.found, now])].filter((word) => !catalogue.zoo.some(({ name }) => name === word));
  const opened = words.map((word) => [word, word.split("/").at(-1)]);
  select.replaceChildren(...[group("opened", opened), group("segment", zoo("segment")), group("classify", zoo("classify"))].filter(Boolean));
  select.value = now;
}

/** A row with a selection, whose value is a name of the state. */
export function selectRow(label, id, onChange) {
  const select = html("select", { id, change: () => onChange(select.value) });
  return [html("div", { class: "field" }, html("label", { for: id }, label), select), select];
}

export async function listImages() {
  return ask("image/list", []);
}

export function fillImages(select, found, now) {
  const files = found.images.map(({ path, name }) => [path, name]);
  if (now && ![...files, ...found.patterns.map(({ path }) => [path])].some(([path]) => path === now)) files.push([now, now.split("/").at(-1)]);
  select.replaceChildren(...[group("images", files), group("without a file", found.patterns.map(({ path, name }) => [path, name]))].filter(Boolean));
  if (now) select.value = now;
}
