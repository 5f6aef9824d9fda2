// In place of call.js in a page within a notebook: questions go to the page around it, which asks the kernel.

const waiting = new Map();
let last = 0;

/** A refusal of Python, in words for people. */
export class Refusal extends Error {}

function count() {
  document.body.dataset.asking = [...waiting.values()].length;
}

count();
window.addEventListener("message", ({ source, data }) => {
  const { convoxel: answer, content } = data ?? {};
  if (source !== window.parent || !answer) return;
  const asked = waiting.get(answer.id);
  waiting.delete(answer.id);
  count();
  if (!asked) return;
  if (answer.error) asked.reject(new Refusal(answer.error));
  else asked.resolve(content ? createImageBitmap(new Blob([content], { type: "image/png" })) : answer.answer);
});

// A link leads to another page of the same kind.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href$='.html']");
  if (!link) return;
  event.preventDefault();
  window.parent.postMessage({ open: link.getAttribute("href").replace(/\.html$/, "") }, "*");
});

/** Ask; null where a newer question of the same slot came in between. */
function send(name, pairs, slot, changes) {
  for (const [id, asked] of waiting) {
    if (asked.slot !== slot) continue;
    waiting.delete(id);
    asked.resolve(null);
  }
  return new Promise((resolve, reject) => {
    waiting.set(++last, { slot, resolve, reject });
    count();
    window.parent.postMessage({ ask: { id: last, name, pairs: [...new URLSearchParams(pairs)], changes } }, "*");
  });
}

export const ask = (name, pairs, slot = name) => send(name, pairs, slot, false);
export const askPicture = ask;
export const act = (name, pairs) => send(name, pairs, name, true);
