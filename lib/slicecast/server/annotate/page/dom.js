// Small helpers for the page's elements.

const COLOURS = [[76, 180, 231], [240, 176, 74], [87, 199, 149], [230, 105, 125], [176, 140, 240], [230, 220, 90],
  [70, 210, 210], [240, 130, 60], [150, 200, 70], [225, 120, 210], [120, 150, 255], [200, 160, 120]];

export const $ = (id) => document.getElementById(id);

/** The colour [red, green, blue] of the structure at a place of the list. */
export const colour = (place) => COLOURS[place % COLOURS.length];

export const element = (kind, properties = {}) => Object.assign(document.createElement(kind), properties);

export const escaped = (text) => element("p", { textContent: text }).innerHTML;

/** Show a sentence at the top; none hides it. */
export function say(text) { $("message").textContent = text; $("message").hidden = !text; }

/** A line of the list of structures; `chosen` is shown so, `known` stands at its end. */
export function structure(name, place, { chosen, known, onclick }) {
  const item = element("li", { className: chosen ? "active" : "" });
  const swatch = element("i"), button = element("button", { className: "name", textContent: name, onclick });
  swatch.style.background = `rgb(${colour(place)})`;
  button.setAttribute("aria-pressed", chosen);
  item.append(swatch, button, element("small", { textContent: known }));
  return item;
}

/** Ask in a dialogue; `yes` names the button that agrees, without it there is none. */
export function asked(title, content, yes) {
  $("title").textContent = title;
  $("content").innerHTML = content;
  $("yes").textContent = yes ?? "";
  $("yes").hidden = !yes;
  $("dialog").returnValue = "no";
  $("dialog").showModal();
  return new Promise((resolve) => $("dialog").addEventListener("close", () => resolve($("dialog").returnValue === "yes"), { once: true }));
}
