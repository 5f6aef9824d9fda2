// A table whose columns sort by a click: numbers from the largest down first, texts upwards.

import { html, tell } from "./element.js";

export class Table {
  /** columns: [{ name, title, number, help }]; onChoose(index of the row). */
  constructor(place, label, onChoose = () => {}) {
    Object.assign(this, { place, label, onChoose, sorted: null, rows: [], columns: [], needle: "" });
  }

  /** rows: [{ cells: name → text, values: name → number, mark }]. */
  show(columns, rows) {
    Object.assign(this, { columns, rows });
    if (this.sorted && !columns.some((column) => column.name === this.sorted.name)) this.sorted = null;
    this.render();
  }

  sort(column) {
    const same = this.sorted?.name === column.name;
    if (same && this.sorted.turned) this.sorted = null;
    else this.sorted = { name: column.name, down: same ? !this.sorted.down : Boolean(column.number), turned: same };
    this.render();
    tell(this.sorted ? `Sorted by ${column.title}, ${this.sorted.down ? "largest" : "smallest"} first` : "In running order");
    this.place.querySelector(`thead button[data-name="${column.name}"]`)?.focus();
  }

  filter(needle) {
    this.needle = needle.toLowerCase();
    this.elements?.forEach((element) => (element.hidden = !this.matches(this.rows[element.dataset.row])));
  }

  matches(row) {
    return !this.needle || Object.values(row.cells).some((text) => String(text).toLowerCase().includes(this.needle));
  }

  choose(indices, scroll = false) {
    const chosen = new Set(indices);
    let first = null;
    this.elements?.forEach((element) => {
      const is = chosen.has(Number(element.dataset.row));
      element.classList.toggle("chosen", is);
      if (is) first ??= element;
    });
    if (scroll && first) {
      // Only within the table: the page stays where it is.
      const box = this.place;
      box.scrollTop = first.offsetTop - box.clientHeight / 3;
    }
  }

  order() {
    const order = this.rows.map((_, index) => index);
    if (!this.sorted) return order;
    const { name, down } = this.sorted;
    const key = (index) => this.rows[index].values[name] ?? this.rows[index].cells[name] ?? "";
    const compare = (a, b) => (typeof key(a) === "number" && typeof key(b) === "number" ? key(a) - key(b) : String(key(a)).localeCompare(String(key(b)), undefined, { numeric: true }));
    return order.sort((a, b) => (down ? -1 : 1) * compare(a, b));
  }

  render() {
    const head = this.columns.map((column) => {
      const is = this.sorted?.name === column.name;
      const arrow = is ? (this.sorted.down ? " ▾" : " ▴") : "";
      const button = html("button", { type: "button", "data-name": column.name, title: column.help, click: () => this.sort(column) }, column.title + arrow);
      return html("th", { scope: "col", class: column.number ? "number" : "", "aria-sort": is ? (this.sorted.down ? "descending" : "ascending") : null }, button);
    });
    this.elements = this.order().map((index) => {
      const row = this.rows[index];
      const cells = this.columns.map((column, place) =>
        html(place ? "td" : "th", { class: column.number ? "number" : "", ...(place ? {} : { scope: "row" }) }, String(row.cells[column.name] ?? "")));
      return html("tr", { "data-row": index, class: row.mark ?? "", click: () => this.onChoose(index) }, cells);
    });
    this.place.replaceChildren(html("table", { "aria-label": this.label }, html("thead", {}, html("tr", {}, head)), html("tbody", {}, this.elements)));
    this.filter(this.needle);
  }
}
