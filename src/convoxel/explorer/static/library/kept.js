// In place of call.js in pages that are files: answers that Python gave when the page was written. Where the site brings
// Python along and comes from a server, Python in the page answers everything else.

import { Refusal, refuseAll, settle, wait } from "./waiting.js";

const answers = JSON.parse(document.getElementById("answers").textContent);
const { live, python } = document.body.dataset;
const note = document.getElementById("python");
const canCompute = Boolean(python) && location.protocol.startsWith("http");
let worker = null;

function say(text) {
  if (note) note.textContent = text;
}

function start() {
  say("Python is being loaded into this page …");
  worker = new Worker(python, { type: "module" });
  worker.onmessage = ({ data }) => {
    if (data.failed) return fail(data.failed);
    say("Live: computed by Python in this page.");
    const answer = JSON.parse(data.answer);
    settle(data.id, answer.error, () => answer);
  };
  worker.onerror = (event) => fail(event.message ?? "the worker did not start");
}

function fail(reason) {
  say("Python could not be loaded; the page shows what was kept.");
  refuseAll(`Python could not be loaded into this page (${reason}). For everything: ${live}`);
}

/** Ask Python in the page; null where a newer question of the same slot came in between. */
function compute(name, pairs, slot) {
  if (!worker) start();
  return wait(slot, (id) => worker.postMessage({ id, name, pairs }));
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
export { Refusal };
