// Questions that wait for an answer from elsewhere: from the page around a notebook's, or from Python in the page.

const waiting = new Map();
let last = 0;

/** A refusal of Python, in words for people. */
export class Refusal extends Error {}

/** Say in the page how many questions are open; tests wait for none. */
function count() {
  document.body.dataset.asking = waiting.size;
}

count();

/** Send a question by post(id), and wait; null where a newer question of the same slot came in between. */
export function wait(slot, post) {
  for (const [id, asked] of waiting) {
    if (asked.slot !== slot) continue;
    waiting.delete(id);
    asked.resolve(null);
  }
  return new Promise((resolve, reject) => {
    waiting.set(++last, { slot, resolve, reject });
    count();
    post(last);
  });
}

/** Answer a question, or refuse it by an error's text; nothing happens where nobody waits any more. */
export function settle(id, error, answer) {
  const asked = waiting.get(id);
  waiting.delete(id);
  count();
  if (!asked) return;
  if (error) asked.reject(new Refusal(error));
  else asked.resolve(answer());
}

/** Refuse all questions. */
export function refuseAll(reason) {
  for (const id of [...waiting.keys()]) settle(id, reason);
}
