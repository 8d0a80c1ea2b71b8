"use strict";

const HEARTBEAT_MS = 60000;

function say(text) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.hidden = !text;
}

async function post(address, body, method = "POST") {
  const response = await fetch(address, {
    method,
    headers: { "Content-Type": "application/json", "X-Requested-With": "slicecast" },
    body: JSON.stringify(body || {}),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail || `The server answered ${response.status}.`);
  return answer;
}

async function attempt(button, work) {
  say("");
  if (button) button.disabled = true;
  try {
    await work();
  } catch (error) {
    say(error.message);
    if (button) button.disabled = false;
  }
}

function caseAddress(name, action) {
  return `/campaign/case/${encodeURIComponent(name)}${action ? "/" + action : ""}`;
}

document.getElementById("who").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = new FormData(event.target).get("who").trim();
  const age = name ? 31536000 : 0;
  document.cookie = `slicecast_user=${encodeURIComponent(name)}; path=/; max-age=${age}; SameSite=Lax`;
  location.reload();
});

// "back" from the viewer shows the page as it was left
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

const next = document.getElementById("next");
if (next) {
  next.addEventListener("click", () => attempt(next, async () => {
    const found = await post("/campaign/next");
    if (!found.id) throw new Error("Nothing is left for you.");
    location.href = caseAddress(found.id);
  }));
}

const TUNING_MS = 3000;

async function showTuning() {
  const now = new DOMParser().parseFromString(await (await fetch("/campaign/")).text(), "text/html");
  document.getElementById("tuning").replaceWith(now.getElementById("tuning"));
  followTuning();
}

function followTuning() {
  const tuning = document.getElementById("tuning");
  if (!tuning) return;
  const button = tuning.querySelector("[data-train]");
  button?.addEventListener("click", () => attempt(button, async () => {
    await post("/train/", {}, button.dataset.train);
    await showTuning();
  }));
  if ("running" in tuning.dataset) setTimeout(() => showTuning().catch(followTuning), TUNING_MS);
}
followTuning();

const page = document.getElementById("case");
if (page) {
  const { case: name, mine, ohif, axis } = page.dataset;
  for (const button of document.querySelectorAll("[data-action]")) {
    button.addEventListener("click", () => attempt(button, async () => {
      const body = {};
      if (button.dataset.shown) body.shown = Number(button.dataset.shown);
      if (button.dataset.name) body.name = button.dataset.name;
      if (button.dataset.label) body.label = button.dataset.label;
      if (button.dataset.ask !== undefined) {
        const why = prompt(button.dataset.ask);
        if (why === null) { button.disabled = false; return; }
        body.why = why;
      }
      await post(caseAddress(name, button.dataset.action), body);
      const slice = button.dataset.at ? `&slice=${button.dataset.at}` : "";
      if (button.dataset.then === "ohif") location.href = ohif + slice;
      else location.reload();
    }));
  }
  for (const button of document.querySelectorAll("[data-slice]")) {
    button.addEventListener("click", () => attempt(button, async () => {
      await post(caseAddress(name, "slice"), { slice: Number(button.dataset.slice), axis });
      location.reload();
    }));
  }
  if (mine === "1") {
    setInterval(() => { if (!document.hidden) attempt(null, () => post(caseAddress(name, "heartbeat"))); }, HEARTBEAT_MS);
  }
}
