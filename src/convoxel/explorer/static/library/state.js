// The state of a view, which stands in the address: a link shows the same, and the browser's buttons work.

export class State extends EventTarget {
  /** defaults: name → text; names that stand at their default are left out of the address. */
  constructor(defaults) {
    super();
    this.defaults = defaults;
    this.read();
    window.addEventListener("popstate", () => {
      this.read();
      this.emit([...Object.keys(this.defaults)]);
    });
  }

  read() {
    // A page that is a file begins with the state that it was written for.
    this.words = new URLSearchParams(location.search || document.body.dataset.state);
  }

  get(name) {
    return this.words.get(name) ?? this.defaults[name] ?? "";
  }

  all(name) {
    return this.words.getAll(name);
  }

  /** Change names to texts (or lists of texts); the page hears of it once. */
  set(changes, push = false) {
    const changed = [];
    for (const [name, value] of Object.entries(changes)) {
      const values = Array.isArray(value) ? value : [String(value)];
      const before = this.words.getAll(name);
      const plain = values.length === 1 && values[0] === (this.defaults[name] ?? "");
      this.words.delete(name);
      if (!plain) values.forEach((each) => this.words.append(name, each));
      if (before.join("\n") !== this.words.getAll(name).join("\n")) changed.push(name);
    }
    if (!changed.length) return;
    const query = this.words.toString();
    // The address of a file on a disk, and of a page in a notebook, stays as it is.
    if (location.protocol.startsWith("http")) history[push ? "pushState" : "replaceState"](null, "", query ? `?${query}` : location.pathname);
    this.emit(changed);
  }

  emit(names) {
    this.dispatchEvent(new CustomEvent("change", { detail: new Set(names) }));
  }

  /** Listen for changes: listener(names). */
  on(listener) {
    this.addEventListener("change", (event) => listener(event.detail));
  }

  /** The words that Python gets. */
  pairs(extra = {}) {
    return [...new URLSearchParams([...this.words, ...Object.entries(extra)])];
  }
}
