// Review: the masks of a case, read-only, how two of them differ, and a reviewer's word on it.

import * as server from "./server.js";
import { $, asked, colour, element, escaped, say, structure } from "./dom.js";

const DIFFERENCE = [[87, 199, 149], [76, 180, 231], [240, 176, 74], [230, 80, 90]]; // agree, only first, only second, other name
const NOTHING = { voxels: null, values: {} };

export class Review {
  /** Show what of a case can be looked at; `found` is what the server knows of it, `go` opens another. */
  constructor(scan, bar, image, found, go) {
    Object.assign(this, { scan, bar, image, found, go, names: [], chosen: null, first: NOTHING, second: NOTHING, agreement: {} });
  }

  async begin() {
    const { scan, found } = this;
    scan.onMove = () => this.place();
    $("first").replaceChildren(...found.masks.map((title) => element("option", { textContent: title })));
    $("second").replaceChildren($("second").options[0], ...found.masks.map((title) => element("option", { textContent: title, value: title })));
    for (const select of ["first", "second"]) $(select).onchange = () => this.look().catch((error) => say(error.message));
    $("judge").hidden = !(found.may_judge && found.reviewer);
    const reopen = found.status === "approved";
    $("approve").hidden = reopen;
    $("approve").disabled = found.own;
    $("approve").title = found.own ? "Another person must approve your label" : "";
    $("reject").textContent = reopen ? "Reopen" : "Reject";
    $("approve").onclick = () => this.judge("approve", "Approved");
    $("reject").onclick = () => this.judge(reopen ? "reopen" : "reject", "Sent back");
    $("differ").onclick = () => this.nextDifference();
    await this.look();
    scan.goToSlice(found.asked?.axis === found.axis ? found.asked.slice : this.fullest());
  }

  async look() {
    const looking = this.looking = {}, [first, second] = [$("first").value, $("second").value];
    const read = (title) => (title ? server.mask(this.image, title) : NOTHING);
    const found = await Promise.all([read(first), read(second)]);
    if (this.looking !== looking) return; // something else was chosen meanwhile, or another case
    [this.first, this.second] = found;
    this.compares = Boolean(second);
    this.names = [...new Set([...Object.keys(this.first.values), ...Object.keys(this.second.values)])];
    if (!this.names.includes(this.chosen)) this.chosen = null;
    this.draw();
  }

  choose(name) { this.chosen = name === this.chosen ? null : name; this.draw(); }

  /** The place of each value in the list of names, from 1; 0 for what is not looked at. */
  places({ values }) {
    const table = new Uint8Array(256);
    for (const [name, value] of Object.entries(values)) if (this.chosen === null || name === this.chosen) table[value] = this.names.indexOf(name) + 1;
    return table;
  }

  draw() {
    const { scan, first, second, compares } = this, [one, two] = [this.places(first), this.places(second)];
    const counts = this.names.map(() => ({ first: 0, second: 0, both: 0 })), shown = scan.mask.img;
    this.agreement = {};
    this.size = {};
    for (let number = 0; number < scan.slices; number++) {
      let all = 0, same = 0;
      scan.each(number, (_, voxel) => {
        const a = first.voxels ? one[first.voxels[voxel]] : 0, b = second.voxels ? two[second.voxels[voxel]] : 0;
        if (a) { counts[a - 1].first++; all++; }
        if (b) { counts[b - 1].second++; all++; }
        if (a && a === b) { counts[a - 1].both++; same += 2; }
        shown[voxel] = !compares ? a : a === b ? (a ? 1 : 0) : a && b ? 4 : a ? 2 : 3;
      });
      if (all) { this.size[number] = all; this.agreement[number] = same / all; }
    }
    scan.colour(compares ? DIFFERENCE : this.names.map((_, place) => colour(place)));
    scan.held = { all: new Set(Object.keys(this.size).map(Number)) };
    scan.drawWhole();
    this.list(counts);
    this.place();
    this.slices();
  }

  list(counts) {
    const ml = (voxels) => `${(voxels * this.scan.voxelMl).toFixed(1)} ml`;
    const known = ({ first, second, both }) => (this.compares ? `${ml(first)}, ${ml(second)}, Dice ${((2 * both) / (first + second || 1)).toFixed(2)}` : ml(first));
    const told = (name, place) => (this.chosen === null || name === this.chosen ? known(counts[place]) : "");
    $("structures").replaceChildren(...this.names.map((name, place) => structure(name, place,
      { chosen: name === this.chosen, known: told(name, place), onclick: () => this.choose(name) })));
    $("legend").hidden = !this.compares;
  }

  slices() {
    const most = Math.max(...Object.values(this.size), 1), differ = this.different();
    const tall = Object.fromEntries(Object.entries(this.size).map(([number, size]) => [number, 0.5 + (0.5 * size) / most]));
    this.bar.show({ count: this.scan.slices, confidence: this.compares ? this.agreement : tall, locked: [], prompted: [] });
    $("suggestion").textContent = !this.found.masks.length ? "There is no label and no draft yet." : !this.compares ? ""
      : differ.length ? `${differ.length} slices differ. The bars show how far each slice agrees (Dice).` : "No slice differs.";
    $("differ").hidden = !differ.length;
  }

  different() { return this.compares ? Object.keys(this.agreement).map(Number).filter((number) => this.agreement[number] < 1) : []; }

  nextDifference() {
    const differ = this.different(), here = this.scan.here[this.scan.along];
    if (differ.length) this.scan.goToSlice(differ.find((number) => number > here) ?? differ[0]);
  }

  fullest() { return Number(Object.keys(this.size).reduce((best, one) => ((this.size[one] ?? 0) > (this.size[best] ?? 0) ? one : best), String(Math.floor(this.scan.slices / 2)))); }

  place() {
    const number = this.scan.here[this.scan.along], agrees = this.agreement[number];
    $("place").textContent = `${this.found.axis} slice ${number} of ${this.scan.slices - 1}` + (this.compares && agrees !== undefined ? `, Dice ${agrees.toFixed(2)}` : "");
    $("at").textContent = number;
    this.bar.at(number);
  }

  async judge(action, done) {
    const number = this.scan.here[this.scan.along], note = $("note").value.trim(), sendsBack = action !== "approve";
    if (sendsBack && !note) { say("Write what is to be done again; the annotator reads it, and the slice that you look at."); $("note").focus(); return; }
    say("");
    try {
      const why = { why: `Slice ${number} (${this.found.axis}): ${note}`, slice: number, axis: this.found.axis };
      await server.act(this.found.name, action, { label: this.found.label, ...(note ? why : {}) });
    } catch (error) { say(error.message); return; }
    $("judge").hidden = true;
    document.body.dataset.judged = action;
    if (await asked(done, `<p>${escaped(this.found.name)}: ${done.toLowerCase()}.</p>`, this.found.to_review ? "Next to review" : "Campaign")) this.leave();
  }

  /** Go on to the next case that waits for a reviewer, or to the campaign. */
  leave() {
    this.looking = null;
    const next = this.found.to_review;
    if (next) this.go(next, true);
    else location.href = "/campaign/";
  }
}
