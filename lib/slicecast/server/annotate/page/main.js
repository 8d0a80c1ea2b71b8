// The annotation page: what the annotator does becomes prompts of a session, and the session's answers are shown.

import * as server from "./server.js";
import { $, asked, colour, element, escaped, say, structure } from "./dom.js";
import { slicesOf } from "./line.js";
import { disc, filled } from "./paint.js";
import { Readings } from "./readings.js";
import { Review } from "./review.js";
import { decode, encode } from "./rle.js";
import { Scan } from "./scan.js";
import { SliceBar } from "./slices.js";

const KEYS = [["click", "inside the structure"], ["Shift + click, right click", "outside it"], ["drag", "a box around it"],
  ["wheel, ↑ ↓", "next and previous slice"], ["C X D B E V", "click, outside, line, brush, eraser, look"], ["line: clicks; Enter, double click", "its vertices, also on other slices; end it (Esc: drop it)"], ["A", "the structure is not on this slice"],
  ["L", "this slice looks right: lock it (again: unlock)"], ["Shift + L", "lock all slices from the nearest locked one to here"], ["H", "fill the holes of the structure on this slice"], ["R", "another reading of the clicks or the box on this slice; again: the next one"], ["N, P", "the suggested slice; the one suggested before"], ["[ ]", "previous and next structure"],
  ["Ctrl + Z, Ctrl + Y", "undo, redo, as far as you like"], ["Esc", "stop; what is done is kept"], ["O, F", "outlines, one view"], ["+ −", "structures more and less opaque"],
  ["S", "save the draft now"], ["Ctrl + Enter", "submit"]];
const HINTS = ["Name a structure on the left, or choose one.", "Click on the structure, or drag a box around it.",
  "Correct: a click adds, Outside (or Shift + click) takes away, Brush paints, Undo takes back.", "Look at the suggested slice (Show it). If it is right, press Looks right; then submit."];
const BEAT_MS = 60_000, RETRY_MS = 2_000, CLICK_PX = 5;
const CONFLICT = 409;
const MENU = 12; // so many of the server's labels are listed from the start

const scan = new Scan($("scan"), $("marks"));
const bar = new SliceBar($("slices"), (number) => scan.goToSlice(number));
const readings = new Readings();
const nothingYet = () => ({ session: null, review: null, run: null, names: [], active: null, ml: {}, confidence: {},
  suggestion: null, enough: "", suggested: [], line: [], drafted: new Set() });
let edits = Promise.resolve(); // until all that was done so far is kept
const state = { tool: "click", busy: 0, moving: false, ...nothingYet() };

// ---- what happens on the page

/** Open what the address names; without an image, the next case. */
function begin() {
  const asks = new URLSearchParams(location.search);
  return asks.get("image") ? open(asks.get("image"), asks.has("review")) : nextCase();
}

/** Go to another case within the page. */
function go(image, toReview = false) {
  history.pushState(null, "", `/annotate/?image=${encodeURIComponent(image)}${toReview ? "&review" : ""}`);
  return attempt(() => opening(() => open(image, toReview)));
}

/** Open a case; until it is open there is no next one, for two would mix. */
async function opening(work) {
  $("next").disabled = true;
  try {
    return await work();
  } finally {
    $("next").disabled = false;
  }
}

async function open(image, toReview) {
  for (const mark of ["ready", "mode", "submitted", "judged"]) delete document.body.dataset[mark];
  for (const id of ["saved", "progress", "suggestion"]) $(id).textContent = "";
  leave();
  Object.assign(state, nothingYet(), { image });
  $("submit").disabled = true;
  const found = await server.caseOf(image);
  state.case = found.name;
  $("name").textContent = found.title;
  $("name").href = `/campaign/case/${encodeURIComponent(found.name)}`;
  $("why").textContent = found.reason;
  document.title = `${found.title} · Slicecast`;
  $("labels").replaceChildren(...found.labels.map((name) => Object.assign(document.createElement("option"), { value: name })));
  const mine = !toReview && await taken();
  if (!mine) document.body.dataset.mode = "review";
  const [content, session] = await Promise.all([loaded(image), mine && sessionOf(image, found)]);
  await scan.open(content);
  scan.cut(session ? session.axis : found.axis);
  if (mine) await work(session, found);
  else await (state.review = new Review(scan, bar, image, found, go)).begin();
  $("windows").hidden = !scan.isCt;
  document.body.dataset.ready = "yes";
  lookAhead(mine ? server.coming() : found.to_review);
}

/** Let go of what is computed: the server stops, and keeps what was said. */
function leave() { state.run?.gone.abort(); state.run = null; }

async function sessionOf(image, { owner, asked }) {
  const open = (await server.sessions()).findLast((one) => one.image === image && one.owner === owner && !one.id.includes("-")); // others' clients name theirs
  return open ?? server.openSession({ image, start: "current", ...(asked && { axis: asked.axis }) });
}

async function work(session, { labels, asked: wanted, choices }) {
  state.session = session;
  const listed = labels.length > MENU || labels.join() === "object" ? [] : labels;
  for (const name of [...listed, ...session.objects, ...session.prompts.map((prompt) => prompt.object)]) know(name);
  choose(session.objects[0] ?? null);
  offer(choices);
  scan.onMove = showPlace;
  const there = wanted?.axis === session.axis;
  scan.goToSlice(there ? wanted.slice : Math.floor(scan.slices / 2));
  if (wanted && !there) say(`Somebody asks for ${wanted.axis} slice ${wanted.slice}: choose that axis to see it.`);
  hinted(0);
  if (session.objects.length) await propagate();
}

/** Offer what a session may be opened with, beside what it was opened with. */
function offer({ axis, window, model }) {
  for (const [id, names] of Object.entries({ axis, grey: window, model: [state.session.model, ...model] })) $(id).replaceChildren(...[...new Set(names)].map((name) => element("option", { textContent: name })));
  $("models").hidden = !model.length;
  showHow();
}

function showHow() { $("axis").value = state.session.axis; $("grey").value = state.session.window; $("model").value = state.session.model; }

/** Go on with other slices, grey values or another model: what is drawn so far becomes painted slices of a new session. */
async function reopen() {
  if (state.moving) return showHow();
  const [axis, window, model] = ["axis", "grey", "model"].map((id) => $(id).value);
  const why = "<p>The structures stay as they are shown. Their prompts become painted slices, and undo begins here.</p>";
  if (state.session.prompts.length && !await asked("Go on with this?", why, "Go on")) return showHow();
  busy(1);
  await attempt(async () => { if (await opening(() => moved({ axis, window, model }))) await propagate(); });
  busy(-1);
}

/** Open a new session on what is drawn so far; tell whether that was done. Nothing is added meanwhile: it would be lost. */
async function moved(how) {
  const before = state.session;
  state.moving = true;
  try {
    await edits;
    if (!await save()) return false;
    state.session = await server.openSession({ image: state.image, start: "current", ...how });
    leave();
    await server.closeSession(before.id);
    scan.clear();
    scan.cut(how.axis);
    Object.assign(state, { confidence: {}, suggestion: null, suggested: [] });
    return true;
  } finally {
    state.moving = false;
    showHow();
  }
}

// ---- the next case's scan, ahead: in this tab's memory only, so that nothing of a patient outlives the tab or a log-out

async function lookAhead(coming) {
  const image = await Promise.resolve(coming).catch(() => null);
  if (image && image !== state.image) state.ahead = { image, content: server.scan(image).catch(() => null) };
}

async function loaded(image) {
  const ahead = state.ahead?.image === image ? await state.ahead.content : null;
  state.ahead = null;
  return ahead ?? server.scan(image);
}

/** Take the case; where somebody else holds it, say so. */
async function taken() {
  try {
    await server.act(state.case, "take");
    return true;
  } catch (error) {
    if (error.status !== CONFLICT) throw error;
    say(error.message);
    return false;
  }
}

/** Keep the case; where it went to somebody else meanwhile, say so: what is done here stays this person's own draft. */
async function hold(action) {
  const gone = (error) => error.status === CONFLICT && !document.body.dataset.submitted;
  await server.act(state.case, action).catch((error) => { if (gone(error)) say(error.message); });
}

async function nextCase() {
  const found = await server.nextCase(state.ahead?.image);
  if (!found.id) { say("Every case is done, or with somebody else."); return; }
  return go(found.id);
}

/** Do what changes the session, then show the session and compute what changed. `work` is given the session's id. */
async function change(work) {
  const { session } = state;
  if (!session || state.moving) { show(); say("The case is being opened. Do it again when it is there."); return; }
  busy(1);
  await attempt(async () => {
    await edited(session, work);
    if (state.session !== session) return; // another case was opened meanwhile
    hold("take");
    show();
    await propagate();
  });
  busy(-1);
}

/** Edit a session, after the edits before: so its revision tells whether one was done of which only the answer was lost. */
function edited(session, work) {
  const done = edits.then(async () => {
    const { id, revision } = session;
    const again = async () => {
      const now = await server.readSession(id);
      return now.revision === revision ? work(id) : now;
    };
    Object.assign(session, await patiently(() => work(id), again));
  });
  edits = done.catch(() => {});
  return done;
}

function busy(by) { state.busy += by; document.body.toggleAttribute("data-busy", state.busy > 0); }

/** Try again until the server is back: what it answered is on its disk, what it did not answer is sent again. */
async function patiently(work, again = work) {
  for (let lost = false; ; lost = true) {
    try {
      const answer = await (lost ? again : work)();
      if (lost) say("");
      return answer;
    } catch (error) {
      if (!(error instanceof server.LostConnection)) throw error;
      say("The server cannot be reached. Your work is kept there; the page goes on when it is back.");
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

async function attempt(work) {
  say("");
  try {
    await work();
  } catch (error) {
    say(error.message);
  }
}

function add(...prompts) {
  if (state.active === null) { say("Name the structure first, on the left."); $("new").focus(); return; }
  hinted(1);
  const given = prompts.map((prompt) => ({ object: state.active, ...prompt })); // of now, also where the server is reached later
  return change((id) => server.addPrompts(id, given));
}

async function propagate() {
  const { session } = state;
  if (state.run) { state.run.again = true; await server.cancel(session.id); return; }
  const run = state.run = { again: false, gone: new AbortController() };
  try {
    do {
      run.again = false;
      await patiently(() => state.run === run && once(run));
    } while (run.again && state.run === run);
  } finally {
    if (state.run === run) { state.run = null; show(); }
  }
}

async function once(run) {
  if (!state.session.objects.length) { scan.clear(); state.ml = {}; state.confidence = {}; state.suggestion = null; return save(); }
  const seen = {}, began = performance.now(), { id } = state.session;
  let summary = null;
  show();
  await server.propagate(id, $("strategy").value, run.gone.signal, (event) => {
    if (state.run !== run) return; // it was left meanwhile
    if (event.type === "slice") {
      (seen[event.object] ??= new Set()).add(event.slice);
      (state.confidence[event.object] ??= {})[event.slice] = event.confidence;
      scan.put(value(event.object), event.slice, decode(event.rle));
      if (event.object === state.active) showSlices();
    } else if (event.type === "progress") {
      $("progress").textContent = `${event.done} slices, ${((performance.now() - began) / 1000).toFixed(1)} s`;
    } else summary = event;
  }).catch((error) => { if (state.run === run) throw error; });
  if (summary && !summary.cancelled && state.run === run) await finish(summary, seen, performance.now() - began);
}

function finish(summary, seen, ms) {
  for (const name of state.names) {
    for (let number = 0; number < scan.slices; number++) {
      if (seen[name]?.has(number)) continue;
      scan.put(value(name), number, null);
      delete state.confidence[name]?.[number];
    }
  }
  state.ml = Object.fromEntries(Object.entries(summary.objects).map(([name, one]) => [name, one]));
  state.suggestion = summary.next_slice;
  if (state.suggestion && state.suggestion.slice !== state.suggested.at(-1)) state.suggested.push(state.suggestion.slice);
  state.visited = state.suggested.length - 1;
  state.enough = summary.good_enough;
  const ends = summary.stopped.filter((one) => one.object === state.active).map((one) => `slice ${one.slice}`);
  $("progress").textContent = `${summary.recomputed + summary.reused} answers, ${summary.recomputed} new, ${(ms / 1000).toFixed(1)} s` + (ends.length ? `; not seen any more at ${ends.join(" and ")}` : "");
  for (const warning of summary.warnings) say(warning);
  hinted(summary.recomputed ? 2 : 3);
  if ($("guide").checked && document.body.dataset.ready && state.suggestion && summary.recomputed) scan.goToSlice(state.suggestion.slice);
  return save();
}

/** Keep the result as the case's draft; return that draft, or null where it could not be kept. */
async function save() {
  const { session, drafted } = state;
  try {
    const draft = await patiently(() => server.saveDraft(session.id, [...drafted].filter((name) => !session.objects.includes(name))));
    for (const name of session.objects) drafted.add(name);
    if (state.session !== session) return null; // another case was opened meanwhile
    $("saved").textContent = `Draft saved ${new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
    $("submit").disabled = draft.shown === null;
    return draft;
  } catch (error) {
    if (state.session !== session) return null; // its prompts are kept
    $("saved").textContent = "Draft not saved";
    say(error.message);
    return null;
  }
}

async function submit() {
  const draft = await save();
  if (!draft) return; // an older one must not be stored in its place
  const rows = Object.entries(draft.objects).map(([name, one]) => `<tr><td>${escaped(name)}</td><td>${one.voxels}</td><td>${one.ml.toFixed(2)}</td></tr>`);
  const table = `<table><thead><tr><th>structure</th><th>voxels</th><th>ml</th></tr></thead><tbody>${rows.join("")}</tbody></table>`;
  if (!await asked("Submit these structures?", table, "Submit")) return;
  await attempt(async () => {
    await server.act(state.case, "submit", { shown: draft.shown });
    await server.closeSession(state.session.id);
    document.body.dataset.submitted = "yes";
    if (await asked("Submitted", `<p>The label of ${escaped($("name").textContent)} is stored.</p>`, "Next case")) await nextCase();
  });
}

// ---- structures

function value(name) { return know(name) + 1; }

function know(name) {
  if (!state.names.includes(name)) { state.names.push(name); scan.mask && scan.colour(state.names.map((_, place) => colour(place))); }
  return state.names.indexOf(name);
}

function choose(name) { if (name !== state.active) state.line = []; state.active = name; if (name) { know(name); scan.colour(state.names.map((_, place) => colour(place))); } show(); }

// ---- showing

function show() {
  $("structures").replaceChildren(...state.names.map((name, place) => structure(name, place,
    { chosen: name === state.active, known: state.ml[name] ? `${state.ml[name].ml.toFixed(1)} ml` : "", onclick: () => choose(name) })));
  const session = state.session;
  $("prompts").replaceChildren(...(session?.prompts ?? []).filter((one) => one.object === state.active).map(promptItem));
  $("axes").checked = Boolean(session?.multi_axis);
  $("undo").disabled = !session?.can_undo && !state.line.length;
  $("redo").disabled = !session?.can_redo;
  $("stop").hidden = !state.run;
  for (const id of ["absent", "lock", "range", "fill", "reading"]) $(id).disabled = state.active === null;
  for (const button of $("tools").children) button.setAttribute("aria-checked", button.dataset.tool === state.tool);
  $("sizing").hidden = !["brush", "eraser"].includes(state.tool);
  $("lining").hidden = state.tool !== "line" && !state.line.length;
  for (const id of ["end", "drop"]) $(id).disabled = !state.line.length;
  const next = state.suggestion;
  $("go").hidden = !next;
  $("suggestion").textContent = next ? `Check slice ${next.slice} next: ${next.reason}` : state.enough ? `${state.enough.replace(/\.?$/, ".")} Submit when you agree.` : "";
  $("submit").classList.toggle("offered", !next && Boolean(state.enough));
  if (session && scan.mask) { showPlace(); showSlices(); scan.mark([...session.prompts.filter((one) => one.object === state.active), { kind: "line", vertices: state.line }]); }
}

function promptItem(prompt) {
  const slices = slicesOf(prompt, scan.along);
  const what = { point: prompt.positive === false ? "− outside" : "+ inside", line: "↗ line", box: "▭ box", mask: "✎ painted", absent: "∅ absent" }[prompt.kind];
  const where = slices.length > 1 ? `${slices.length} slices` : `slice ${slices[0]}`;
  const item = element("li");
  item.append(element("button", { className: "name", textContent: `${what}, ${where}`, onclick: () => scan.goToSlice(slices[0]) }),
    element("button", { textContent: "×", title: "Remove this prompt", ariaLabel: `Remove ${what}, ${where}`, onclick: () => change((id) => server.removePrompt(id, prompt.id)) }));
  return item;
}

function showPlace() {
  const number = scan.here[scan.along];
  $("place").textContent = `${state.session.axis} slice ${number} of ${scan.slices - 1}`;
  $("lock").textContent = locked().includes(number) ? "Unlock" : "Looks right";
  bar.at(number);
}

function showSlices() {
  const prompted = (state.session.prompts ?? []).filter((one) => one.object === state.active);
  bar.show({ count: scan.slices, confidence: state.confidence[state.active] ?? {}, locked: locked(), suggested: state.suggestion?.slice,
    prompted: prompted.flatMap((one) => slicesOf(one, scan.along)) });
}

function locked() { return state.session.accepted[state.active] ?? []; }

function hinted(done) {
  const reached = Math.max(done, Number(localStorage.getItem("slicecast_hint") ?? 0));
  localStorage.setItem("slicecast_hint", reached);
  $("hint").hidden = reached >= HINTS.length;
  $("hint").textContent = HINTS[reached] ?? "";
}

// ---- mouse

let press = null;

function placeOf(event) { const frame = $("scan").getBoundingClientRect(); return [event.clientX - frame.left, event.clientY - frame.top]; }

$("scan").addEventListener("pointerdown", (event) => {
  if (state.review || state.tool === "look" || event.button === 1 || event.ctrlKey) return;
  const [x, y] = placeOf(event), start = scan.voxelAt(x, y);
  if (!start) return;
  press = { x, y, start, right: event.button === 2 || event.shiftKey || state.tool === "outside" };
  if (["brush", "eraser"].includes(state.tool)) beginStroke(start);
});

window.addEventListener("pointermove", (event) => {
  if (!press) return;
  const [x, y] = placeOf(event);
  if (press.stroke) { const now = scan.voxelAt(x, y); if (now?.tile === press.start.tile) stroke(now.ijk); return; }
  if (state.tool !== "click" || press.right) return;
  Object.assign($("box").style, { left: `${Math.min(x, press.x)}px`, top: `${Math.min(y, press.y)}px`, width: `${Math.abs(x - press.x)}px`, height: `${Math.abs(y - press.y)}px` });
  $("box").hidden = Math.hypot(x - press.x, y - press.y) < CLICK_PX;
});

window.addEventListener("pointerup", (event) => {
  if (!press) return;
  const { start, right, stroke: painted, ...from } = press, [x, y] = placeOf(event), end = scan.voxelAt(x, y);
  press = null;
  $("box").hidden = true;
  if (painted) return endStroke(painted);
  if (state.tool === "line") return end?.tile === start.tile && vertex(end.ijk);
  if (Math.hypot(x - from.x, y - from.y) < CLICK_PX) return add({ kind: "point", ijk: start.ijk, positive: !right });
  if (!right && end?.tile === start.tile) add(boxed(start.ijk, end.ijk));
});

$("scan").addEventListener("contextmenu", (event) => event.preventDefault());

$("scan").addEventListener("dblclick", () => { if (state.tool === "line" && state.line.length) { state.line.pop(); endLine(); } }); // its second click was one more vertex

function vertex(ijk) {
  if (state.active === null) { say("Name the structure first, on the left."); return; }
  say("");
  state.line = [...state.line, ijk];
  show();
}

function endLine() {
  if (state.line.length < 2) { say("A line needs two vertices or more: click once more, also on another slice."); return show(); }
  return add({ kind: "line", vertices: state.line.splice(0) });
}

function dropVertices(kept) { state.line = state.line.slice(0, kept); show(); }

function boxed(a, b) { return { kind: "box", low_ijk: a.map((index, place) => Math.min(index, b[place])), high_ijk: a.map((index, place) => Math.max(index, b[place])) }; }

function beginStroke({ ijk, plane }) {
  if (state.active === null) { press = null; say("Name the structure first, on the left."); return; }
  if (plane !== scan.paintPlane) { press = null; say(`Paint on the ${state.session.axis} view: slices are painted whole.`); return; }
  const number = ijk[scan.along];
  press.stroke = { number, pixels: scan.slice(value(state.active), number), erase: state.tool === "eraser" !== press.right };
  stroke(ijk);
}

function stroke(ijk) {
  const { number, pixels, erase } = press.stroke;
  disc(pixels, scan.rows, scan.columns, scan.across.map((place) => ijk[place]), Number($("size").value) / 2, erase ? 0 : 1);
  scan.put(value(state.active), number, pixels);
}

function endStroke({ number, pixels }) {
  if (!pixels.includes(1)) return add({ kind: "absent", slice: number });
  add({ kind: "mask", slice: number, rle: encode(pixels, scan.rows, scan.columns) });
}

// ---- buttons and keys

/** Lock every slice from the nearest locked one to the one on view. */
function lockToHere() {
  const here = scan.here[scan.along], near = locked().toSorted((a, b) => Math.abs(a - here) - Math.abs(b - here))[0];
  if (near === undefined) { say("Lock one end first (L), go to the other end, then Shift + L."); return; }
  const from = Math.min(near, here), slices = Array.from({ length: Math.abs(near - here) + 1 }, (_, place) => from + place);
  const { active } = state;
  return change((id) => server.lock(id, active, slices));
}

function fill() {
  if (state.active === null) return;
  const number = scan.here[scan.along], before = scan.slice(value(state.active), number), after = filled(before, scan.rows, scan.columns);
  if (after.every((pixel, place) => pixel === before[place])) { say(`${state.active} has no hole on slice ${number}.`); return; }
  return add({ kind: "mask", slice: number, rle: encode(after, scan.rows, scan.columns) });
}

/** Show what else the clicks or the box on this slice may mean; each time another one, then the first answer again. */
function otherReading() {
  const number = scan.here[scan.along], name = state.active, { id, prompts } = state.session;
  const said = prompts.filter((one) => one.object === name && one.kind !== "mask").map((one) => one.id);
  return attempt(async () => {
    const shown = scan.slice(value(name), number);
    const pixels = await readings.next([id, name, number, ...said].join(), shown, () => server.readings(id, name, number));
    if (!pixels) say(`There is no other reading of ${name} on slice ${number}.`);
    else if (state.session?.id === id) await add({ object: name, kind: "mask", slice: number, rle: encode(pixels, scan.rows, scan.columns) });
  });
}

function toggleLock() {
  const { active } = state;
  if (active === null) return;
  const number = scan.here[scan.along], work = locked().includes(number) ? server.unlock : server.lock;
  hinted(4);
  return change((id) => work(id, active, [number]));
}

function toggle(button, work) { const on = button.getAttribute("aria-pressed") !== "true"; button.setAttribute("aria-pressed", on); work(on); }
function step(by) { scan.goToSlice(Math.min(Math.max(scan.here[scan.along] + by, 0), scan.slices - 1)); }
function turn(by) { if (state.names.length) choose(state.names[(state.names.indexOf(state.active) + by + state.names.length) % state.names.length]); }
function use(tool) { state.tool = tool; show(); }
function opaque(by) { $("opacity").valueAsNumber += by; scan.opacity($("opacity").valueAsNumber); }

/** Show a suggested slice: the present one, or the one before the one shown last. */
function suggested(place) {
  state.visited = Math.max(0, place);
  if (state.suggested.length) scan.goToSlice(state.suggested[state.visited]);
}

const actions = {
  end: endLine, drop: () => dropVertices(0),
  undo: () => state.line.length ? dropVertices(-1) : state.session.can_undo && change(server.undo),
  redo: () => state.session.can_redo && change(server.redo),
  absent: () => add({ kind: "absent", slice: scan.here[scan.along] }),
  lock: toggleLock, range: lockToHere, fill, reading: () => state.active !== null && otherReading(),
  go: () => suggested(state.suggested.length - 1),
  stop: () => { if (state.run) state.run.again = false; server.cancel(state.session.id); },
  submit, next: () => (state.review ? state.review.leave() : attempt(() => opening(nextCase))),
  back: () => step(-1), forth: () => step(1),
  outline: () => toggle($("outline"), (on) => scan.outline(on)),
  single: () => toggle($("single"), (on) => scan.arrange(on ? "slice" : "all")),
  help: () => asked("Keys", `<table>${KEYS.map(([key, what]) => `<tr><td><kbd>${key}</kbd></td><td>${what}</td></tr>`).join("")}</table>`),
};
for (const [id, work] of Object.entries(actions)) $(id).addEventListener("click", work);
for (const button of $("tools").children) button.addEventListener("click", () => use(button.dataset.tool));
$("opacity").addEventListener("input", (event) => scan.opacity(Number(event.target.value)));
for (const id of ["dark", "bright"]) $(id).addEventListener("input", () => scan.contrast(Number($("dark").value), Number($("bright").value)));
$("window").addEventListener("change", (event) => { scan.window(...event.target.value.split(" ").map(Number)); event.target.blur(); });
$("guide").checked = localStorage.slicecast_guide === "yes";
$("guide").addEventListener("change", (event) => { localStorage.slicecast_guide = event.target.checked ? "yes" : "no"; });
for (const select of document.querySelectorAll("[data-how]")) select.addEventListener("change", reopen);
$("strategy").addEventListener("change", () => change(server.readSession));
$("axes").addEventListener("change", ({ target: { checked } }) => change((id) => server.changeSession(id, { multi_axis: checked })));
$("add").addEventListener("submit", (event) => { event.preventDefault(); const name = $("new").value.trim(); if (name) { $("new").value = ""; choose(name); hinted(1); $("scan").focus(); } });

const pressed = { "?": actions.help, a: actions.absent, l: actions.lock, L: actions.range, h: actions.fill, r: actions.reading, n: actions.go, p: () => suggested(state.visited - 1), "+": () => opaque(0.1), "=": () => opaque(0.1), "-": () => opaque(-0.1), o: actions.outline, f: actions.single, s: save,
  c: () => use("click"), x: () => use("outside"), d: () => use("line"), b: () => use("brush"), e: () => use("eraser"), v: () => use("look"), "[": () => turn(-1), "]": () => turn(1),
  ArrowUp: () => step(1), ArrowDown: () => step(-1), Escape: actions.stop };
const pressedInLine = { Enter: actions.end, Escape: actions.drop };
const pressedInReview = { n: () => state.review.nextDifference(), o: actions.outline, f: actions.single, ArrowUp: () => step(1), ArrowDown: () => step(-1) };
const pressedWithCtrl = { z: actions.undo, y: actions.redo, Z: actions.redo, Enter: () => $("submit").disabled || submit() };

document.addEventListener("keydown", (event) => {
  if (!state.session && !state.review) return;
  if (event.target.matches("input:not([type=range], [type=checkbox]), textarea") || $("dialog").open) return;
  const held = event.ctrlKey || event.metaKey;
  const work = (!held && state.line.length && pressedInLine[event.key]) || (state.review ? (held ? {} : pressedInReview) : held ? pressedWithCtrl : pressed)[event.key];
  if (!work) return;
  event.preventDefault();
  event.stopPropagation();
  work();
}, true);

setInterval(() => state.session && !document.hidden && hold("heartbeat"), BEAT_MS); // seconds of work are counted by it
window.addEventListener("popstate", () => location.reload());
attempt(() => opening(begin));

export { scan }; // for tests, and for a look from the browser's console
