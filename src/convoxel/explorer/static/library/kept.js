// In place of call.js in pages that are files: answers that Python gave when the page was written.

const answers = JSON.parse(document.getElementById("answers").textContent);

/** A refusal, in words for people. */
export class Refusal extends Error {}

document.body.dataset.asking = "0";

export async function ask(name, pairs) {
  const words = [...new URLSearchParams(pairs)].map(([key, value]) => `${key}=${value}`).sort();
  const found = answers.indices[JSON.stringify([name, ...words])];
  if (found === undefined) throw new Refusal(`This page shows what was computed when it was written. For everything else: ${document.body.dataset.live}`);
  // A page may change what it is given.
  const answer = structuredClone(answers.values[found]);
  if (answer.error) throw new Refusal(answer.error);
  return answer;
}

export const askPicture = ask;
export const act = ask;
