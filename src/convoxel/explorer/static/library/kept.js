// In place of call.js in pages that are files: answers that Python gave when the page was written. Where the site brings
// Python along and comes from a server, Python in the page answers everything else.

const answers = JSON.parse(document.getElementById("answers").textContent);
const { live, python } = document.body.dataset;
const note = document.getElementById("python");
const canCompute = Boolean(python) && location.protocol.startsWith("http");
const waiting = new Map();
let worker = null;
let last = 0;

/** A refusal, in words for people. */
export class Refusal extends Error {}

function count() {
  document.body.dataset.asking = waiting.size;
}

count();

function say(text) {
  if (note) note.textContent = text;
}

function start() {
  say("Python is being loaded into this page …");
  worker = new Worker(python, { type: "module" });
  worker.onmessage = ({ data }) => {
    if (data.failed) return fail(data.failed);
    say("Live: computed by Python in this page.");
    const asked = waiting.get(data.id);
    waiting.delete(data.id);
    count();
    if (!asked) return;
    const answer = JSON.parse(data.answer);
    if (answer.error) asked.reject(new Refusal(answer.error));
    else asked.resolve(answer);
  };
  worker.onerror = (event) => fail(event.message ?? "the worker did not start");
}

function fail(reason) {
  say("Python could not be loaded; the page shows what was kept.");
  for (const asked of waiting.values()) asked.reject(new Refusal(`Python could not be loaded into this page (${reason}). For everything: ${live}`));
  waiting.clear();
  count();
}

/** Ask Python in the page; null where a newer question of the same slot came in between. */
function compute(name, pairs, slot) {
  if (!worker) start();
  for (const [id, asked] of waiting) {
    if (asked.slot !== slot) continue;
    waiting.delete(id);
    asked.resolve(null);
  }
  return new Promise((resolve, reject) => {
    waiting.set(++last, { slot, resolve, reject });
    count();
    worker.postMessage({ id: last, name, pairs });
  });
}

export async function ask(name, pairs, slot = name) {
  const given = [...new URLSearchParams(pairs)];
  const words = given.map(([key, value]) => `${key}=${value}`).sort();
  const found = answers.indices[JSON.stringify([name, ...words])];
  if (found === undefined && canCompute && /^(layer|lecture)\//.test(name)) return compute(name, given, slot);
  if (found === undefined) throw new Refusal(`This page shows what was computed when it was written. For everything else: ${live}`);
  // A page may change what it is given.
  const answer = structuredClone(answers.values[found]);
  if (answer.error) throw new Refusal(answer.error);
  return answer;
}

export const askPicture = ask;
export const act = ask;
