// Panning and zooming of a picture: pointer, wheel, two fingers, keys.

const CLOSEST = 3;

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

  apply() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.group.setAttribute("transform", `translate(${this.x} ${this.y}) scale(${this.scale})`);
    });
  }

  /** Show a box of the picture, as large as fits, but not larger than life. */
  fit({ left, top, width, height }) {
    this.box = { left, top, width, height };
    const room = this.svg.getBoundingClientRect();
    const margin = 14;
    this.least = Math.min(1, (room.width - 2 * margin) / width, (room.height - 2 * margin) / height);
    this.scale = Math.max(this.least, 0.02);
    this.x = (room.width - width * this.scale) / 2 - left * this.scale;
    this.y = (room.height - height * this.scale) / 2 - top * this.scale;
    this.apply();
  }

  centre(x, y, scale = Math.max(this.scale, 0.7)) {
    const room = this.svg.getBoundingClientRect();
    this.scale = scale;
    this.x = room.width / 2 - x * scale;
    this.y = room.height / 2 - y * scale;
    this.apply();
  }

  zoom(factor, x, y) {
    const room = this.svg.getBoundingClientRect();
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
    const box = this.svg.getBoundingClientRect();
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
      const box = this.svg.getBoundingClientRect();
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
