// The bar above the viewer: the case, what its draft holds, the slice to look at next, and what the panel has no button for.

const HEIGHT_PX = 42;
const BEAT_MS = 60_000;

const LOOK = `:host { position: fixed; inset: 0 0 auto; height: ${HEIGHT_PX}px; z-index: 60; font: 14px system-ui, sans-serif; }
  :host([hidden]) { display: none; } header { height: 100%; color: var(--ink); } #told { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--soft); }
  #told.alarm { color: var(--amber); } a { color: var(--ink); font-weight: 600; white-space: nowrap; } button { white-space: nowrap; }`;
const ROOM = `#root { margin-top: ${HEIGHT_PX}px; } #root [style*="100vh"] { height: calc(100vh - 52px - ${HEIGHT_PX}px) !important; }`; // 52px: the viewer's own head
const CONTENT = `<link rel="stylesheet" href="/assets/slicecast.css"><style>${LOOK}</style>
  <header><a id="name"></a><span id="told" role="status"></span><button id="go" hidden></button><button id="back" title="Take back the last change of the draft">Undo</button><button id="submit" class="primary">Submit</button><button id="next">Next case</button></header>`;

const element = (kind, properties) => Object.assign(document.createElement(kind), properties);
const listed = (objects) => Object.entries(objects).map(([name, { ml }]) => `${name} ${ml.toFixed(1)} ml`).join(", ");

async function ask(address, body) {
  const how = body && { method: "POST", headers: { "Content-Type": "application/json", "X-Requested-With": "slicecast" }, body: JSON.stringify(body) };
  const response = await fetch(address, how);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(typeof answer.detail === "string" ? answer.detail : `The server answered ${response.status}.`);
  return answer;
}

export class Bar {
  /** `jump(axis, number)` shows a slice as the viewer counts; `undo(back)` shows what `back` changes in the draft. */
  constructor({ jump, undo }) {
    this.host = element("div", { id: "slicecast" });
    this.room = element("style", { textContent: ROOM });
    this.part = this.host.attachShadow({ mode: "open" });
    this.part.innerHTML = CONTENT;
    document.head.append(this.room);
    document.body.append(this.host);
    this.on("go", () => jump(this.case.next_slice.axis, this.case.next_slice.number));
    this.on("back", async () => { await undo(() => this.act("back")); await this.refresh(); });
    this.on("submit", () => this.submit());
    this.on("next", () => this.next());
    new PerformanceObserver((seen) => seen.getEntries().some(({ name }) => name.includes("/infer/")) && this.refresh()).observe({ type: "resource" });
    setInterval(() => this.case?.mine && !document.hidden && this.act("heartbeat").catch(() => {}), BEAT_MS); // seconds of work are counted by it
  }

  $(id) { return this.part.getElementById(id); }

  on(id, work) {
    this.$(id).addEventListener("click", async () => {
      try { await work(); } catch (error) { this.say(error.message, true); }
    });
  }

  act(action, body = {}) { return ask(`/campaign/case/${encodeURIComponent(this.case.name)}/${action}`, body); }

  say(text, alarm = false) { Object.assign(this.$("told"), { textContent: text, title: text, className: alarm ? "alarm" : "" }); }

  show(on) { this.host.hidden = this.room.disabled = !on; }

  async open(series) { this.series = series; await this.refresh(); }

  async refresh() {
    if (!this.series) return;
    const known = this.case = await ask(`/ohif/case/${this.series}`), suggested = known.next_slice;
    Object.assign(this.$("name"), { textContent: known.name, href: `/campaign/case/${encodeURIComponent(known.name)}` });
    this.say(known.holder ? `With ${known.holder}.` : listed(known.objects) || "No structure yet: on the right choose a label, click, Run.", Boolean(known.holder));
    this.$("go").hidden = !suggested;
    if (suggested) Object.assign(this.$("go"), { textContent: `Check ${suggested.axis} ${suggested.number}`, title: suggested.reason });
    for (const id of ["back", "submit"]) this.$(id).disabled = !known.submit;
  }

  async submit() {
    await this.refresh(); // so that what is asked about is what is stored
    if (!confirm(`Submit ${listed(this.case.objects) || "an empty label"}?`)) return;
    await this.act("submit", { shown: this.case.shown });
    await this.refresh();
    this.say(`Submitted: ${listed(this.case.objects)}.`);
  }

  async next() {
    const { id } = await ask("/campaign/next", {});
    if (id) location.href = `/ohif/open/${encodeURIComponent(id)}`;
    else this.say("Every case is done, or with somebody else.", true);
  }
}
