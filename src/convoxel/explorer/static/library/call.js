// Questions to Python. A newer question of the same name makes an older one void.

const running = new Map();

/** Say in the page how many questions are open; tests wait for none. */
function count() {
  document.body.dataset.asking = running.size;
}

/** A refusal of Python, in words for people. */
export class Refusal extends Error {}

async function send(name, address, options) {
  running.get(name)?.abort();
  const controller = new AbortController();
  running.set(name, controller);
  count();
  try {
    const response = await fetch(address, { ...options, signal: controller.signal, credentials: "same-origin" });
    const answer = await response.json().catch(() => ({ error: `The explorer answered ${response.status}.` }));
    if (!response.ok || answer.error) throw new Refusal(answer.error);
    return answer;
  } catch (error) {
    if (error instanceof Refusal) throw error;
    if (error.name === "AbortError") return null;
    throw new Refusal("The explorer does not answer. Is `convoxel explore` still running?");
  } finally {
    if (running.get(name) === controller) running.delete(name);
    count();
  }
}

/** Ask a function that only computes; null where a newer question came in between. */
export function ask(name, pairs, slot = name) {
  const words = new URLSearchParams(pairs);
  return send(slot, `/api/${name}?${words}`, { method: "GET" });
}

/** Ask a function that changes, starts or measures something. */
export function act(name, pairs) {
  const body = JSON.stringify([...new URLSearchParams(pairs)]);
  return send(name, `/api/${name}`, { method: "POST", body, headers: { "content-type": "application/json" } });
}
