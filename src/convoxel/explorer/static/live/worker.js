// Python for exported pages, in a thread of its own: { id, name, pairs } comes in, { id, answer } or { failed } goes out.

import { loadPyodide } from "./pyodide/pyodide.mjs";

const here = (name) => new URL(name, import.meta.url).href;

async function start() {
  const [python, modules] = await Promise.all([
    loadPyodide({ indexURL: here("pyodide/") }),
    fetch(here("convoxel.zip")).then((response) => response.arrayBuffer()),
  ]);
  python.unpackArchive(modules, "zip", { extractDir: "/convoxel" });
  python.runPython("import sys; sys.path.insert(0, '/convoxel')");
  return python.pyimport("convoxel.explorer.live").answer;
}

const started = start();
started.catch((error) => postMessage({ failed: String(error) }));

onmessage = async ({ data: { id, name, pairs } }) => {
  const answer = await started;
  postMessage({ id, answer: answer(name, JSON.stringify(pairs)) });
};
