// Panning and zooming of a picture: pointer, wheel, two fingers, keys.
//
// While it moves, the browser shifts and scales the pixels that it has; the shapes are painted anew when it rests. So a
// graph of many parts moves as fluently as one of few. The frame is twice as wide and tall as what is seen, so that
// there is something to shift in.

const CLOSEST = 3;
const REST_MS = 130;
// Texts that are smaller than this share of their size are left out.
const LEGIBLE = 0.28;

export class PanZoom {
  /** svg: the frame; group: what moves within it. */
  constructor(svg, group) {
    Object.assign(this, { svg, group, x: 0, y: 0, scale: 1, pointers: new Map(), moved: false });
    svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    svg.addEventListener("pointerdown", (event) => this.down(event));
    svg.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) svg.addEventListener(name, (event) => this.up(event));
    // A click at the end of a drag is none.
    svg.addEventListener("click", (event) => this.moved && event.stopPropagation(), { capture: true });
  }

  /** Where the picture is seen. */
  room() {
    return this.svg.parentElement.getBoundingClientRect();
  }

  apply() {
    this.waiting ||= requestAnimationFrame(() => {
      this.waiting = 0;
      this.movePixels();
    });
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.paint(), REST_MS);
  }

  movePixels() {
    const { painted } = this;
    if (!painted) return this.paint();
    const factor = this.scale / painted.scale;
    const { width, height } = this.room();
    // The frame begins half a width left of, and half a height above what is seen.
    const left = this.x - painted.x * factor + (1 - factor) * (width / 2);
    const top = this.y - painted.y * factor + (1 - factor) * (height / 2);
    this.svg.style.transform = `matrix(${factor}, 0, 0, ${factor}, ${left}, ${top})`;
  }

  paint() {
    clearTimeout(this.resting);
    const { width, height } = this.room();
    this.painted = { x: this.x, y: this.y, scale: this.scale };
    this.svg.style.transform = "";
    this.group.setAttribute("transform", `translate(${this.x + width / 2} ${this.y + height / 2}) scale(${this.scale})`);
    this.group.classList.toggle("far", this.scale < LEGIBLE);
  }

  /** Show a box of the picture, as large as fits, but not larger than life. */
  fit({ left, top, width, height }) {
    const room = this.room();
    const margin = 14;
    this.least = Math.min(1, (room.width - 2 * margin) / width, (room.height - 2 * margin) / height);
    this.scale = Math.max(this.least, 0.02);
    this.x = (room.width - width * this.scale) / 2 - left * this.scale;
    this.y = (room.height - height * this.scale) / 2 - top * this.scale;
    this.paint();
  }

  centre(x, y, scale = Math.max(this.scale, 0.7)) {
    const room = this.room();
    this.scale = scale;
    this.x = room.width / 2 - x * scale;
    this.y = room.height / 2 - y * scale;
    this.apply();
  }

  zoom(factor, x, y) {
    const room = this.room();
    const [px, py] = [x ?? room.width / 2, y ?? room.height / 2];
    const scale = Math.min(CLOSEST, Math.max((this.least ?? 0.1) / 2, this.scale * factor));
    this.x = px - ((px - this.x) * scale) / this.scale;
    this.y = py - ((py - this.y) * scale) / this.scale;
    this.scale = scale;
    this.apply();
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.apply();
  }

  wheel(event) {
    event.preventDefault();
    const box = this.room();
    // A wheel that tells lines (mode 1) turns further than one that tells pixels.
    const turn = event.deltaY * (event.deltaMode ? 20 : 1);
    if (event.shiftKey) this.pan(-turn, 0);
    else this.zoom(Math.exp(-turn * 0.0015), event.clientX - box.left, event.clientY - box.top);
  }

  down(event) {
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.pointers.size === 1) this.moved = false;
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    if (!this.moved && Math.hypot(dx, dy) < 4) return;
    if (!this.moved) this.svg.setPointerCapture(event.pointerId);
    this.moved = true;
    this.svg.parentElement.classList.add("dragging");
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const distance = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      const box = this.room();
      this.zoom(distance(now) / distance(before), (now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top);
      this.pan(dx / 2, dy / 2);
    } else this.pan(dx, dy);
    this.pointers.set(event.pointerId, now);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.svg.parentElement.classList.remove("dragging");
  }
}
