"use strict";

// Dark, unless this browser was asked for light; the button ◐ of every page changes it.
document.documentElement.dataset.theme = localStorage.slicecast_theme ?? "dark";
document.addEventListener("click", ({ target }) => {
  if (!target.closest("#theme")) return;
  const { dataset } = document.documentElement;
  dataset.theme = localStorage.slicecast_theme = dataset.theme === "dark" ? "light" : "dark";
});
