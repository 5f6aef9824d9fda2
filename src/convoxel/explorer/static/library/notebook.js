// The explorer in the output of a notebook's cell: a frame whose questions go to the kernel and come back.
//
// anywidget calls `render`. The frame holds a whole page (`page`); it posts { ask: { id, name, pairs, changes } } for what
// it asks of Python (asked.js), and { open: name } for a link.

function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.title = "Convoxel";
  frame.allow = "clipboard-write";
  Object.assign(frame.style, { width: "100%", height: `${model.get("height")}px`, border: "1px solid #8884", borderRadius: "6px" });
  const load = () => (frame.srcdoc = model.get("page"));
  const hear = (event) => {
    if (event.source !== frame.contentWindow) return;
    if (event.data?.ask || event.data?.open) model.send(event.data);
  };
  const tell = (message, buffers) => {
    const content = (buffers ?? []).map((part) => (part instanceof DataView ? part.buffer.slice(part.byteOffset, part.byteOffset + part.byteLength) : part));
    frame.contentWindow?.postMessage({ convoxel: message, content: content[0] ?? null }, "*");
  };
  window.addEventListener("message", hear);
  model.on("msg:custom", tell);
  model.on("change:page", load);
  load();
  el.append(frame);
  return () => {
    window.removeEventListener("message", hear);
    model.off("msg:custom", tell);
    model.off("change:page", load);
  };
}

export default { render };
