// Questions to Python. A newer question of the same name makes an older one void.

const running = new Map();

/** Say in the page how many questions are open; tests wait for none. */
function count() {
  document.body.dataset.asking = running.size;
}

/** A refusal of Python, in words for people. */
export class Refusal extends Error {}

async function send(name, address, options, read = (response) => response.json()) {
  running.get(name)?.abort();
  const controller = new AbortController();
  running.set(name, controller);
  count();
  try {
    const response = await fetch(address, { ...options, signal: controller.signal, credentials: "same-origin" });
    const isJson = response.headers.get("content-type")?.startsWith("application/json");
    const answer = await (isJson ? response.json() : read(response)).catch(() => ({ error: `The explorer answered ${response.status}.` }));
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

/** Ask a function that answers with a picture; null where a newer question came in between. */
export function askPicture(name, pairs, slot = name) {
  const read = async (response) => createImageBitmap(await response.blob());
  return send(slot, `/api/${name}?${new URLSearchParams(pairs)}`, { method: "GET" }, read);
}

/** Ask a function that changes, starts or measures something. */
export function act(name, pairs) {
  const body = JSON.stringify([...new URLSearchParams(pairs)]);
  return send(name, `/api/${name}`, { method: "POST", body, headers: { "content-type": "application/json" } });
}
