// Play and pause of frames, by one button and the space bar.

import { onKey } from "./shell.js";

export class Player {
  /** wait(): milliseconds of a frame; next(): show the frame after; rest(): after a pause; ready(): whether there is more than one. */
  constructor(button, { wait, next, rest, ready }) {
    Object.assign(this, { button, wait, next, rest, ready, timer: null });
    button.addEventListener("click", () => this.toggle());
    onKey(" ", () => this.toggle());
  }

  get running() {
    return this.timer !== null;
  }

  play() {
    const tick = () => {
      this.timer = setTimeout(tick, this.wait());
      this.next();
    };
    this.timer = setTimeout(tick, 0);
    this.say("❚❚", "Pause");
  }

  stop() {
    if (!this.running) return;
    clearTimeout(this.timer);
    this.timer = null;
    this.say("▶", "Play");
    this.rest();
  }

  toggle() {
    if (this.running) this.stop();
    else if (this.ready()) this.play();
  }

  say(sign, label) {
    this.button.textContent = sign;
    this.button.setAttribute("aria-label", label);
  }
}
