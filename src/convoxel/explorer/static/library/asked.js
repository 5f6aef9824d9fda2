// In place of call.js in a page within a notebook: questions go to the page around it, which asks the kernel.

import { Refusal, settle, wait } from "./waiting.js";

window.addEventListener("message", ({ source, data }) => {
  const { convoxel: answer, content } = data ?? {};
  if (source !== window.parent || !answer) return;
  settle(answer.id, answer.error, () =>
    content ? createImageBitmap(new Blob([content], { type: "image/png" })) : answer.answer,
  );
});

// A link leads to another page of the same kind.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href$='.html']");
  if (!link) return;
  event.preventDefault();
  window.parent.postMessage({ open: link.getAttribute("href").replace(/\.html$/, "") }, "*");
});

function send(name, pairs, slot, changes) {
  const given = [...new URLSearchParams(pairs)];
  return wait(slot, (id) => window.parent.postMessage({ ask: { id, name, pairs: given, changes } }, "*"));
}

export const ask = (name, pairs, slot = name) => send(name, pairs, slot, false);
export const askPicture = ask;
export const act = (name, pairs) => send(name, pairs, name, true);
export { Refusal };
