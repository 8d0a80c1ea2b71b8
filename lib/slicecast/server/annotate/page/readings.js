// What else the clicks or the box on a slice may mean: the server's readings, one after the other.

import { decode } from "./rle.js";

const ALIKE = 0.9; // Dice from which on a person sees no difference

export class Readings {
  /** Return the next reading's pixels, after the last one what was on view at first; null where there is no other.
   * `key` names structure, slice and what was said there, `shown` is on view, `ask` gets the server's. */
  async next(key, shown, ask) {
    if (this.key !== key) {
      const others = (await ask()).map(decode).filter((one) => !alike(one, shown));
      Object.assign(this, { key, at: -1, all: shown.includes(1) ? [...others, shown] : others, some: others.length > 0 });
    }
    this.at = (this.at + 1) % this.all.length;
    return this.some ? this.all[this.at] : null;
  }
}

function alike(one, other) {
  const area = (mask) => mask.reduce((sum, pixel) => sum + pixel, 0);
  return 2 * area(one.map((pixel, place) => pixel & other[place])) > ALIKE * (area(one) + area(other));
}
