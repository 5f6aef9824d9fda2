// The chosen theme, before anything is painted. Without a choice the page follows the system.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {} // a frame of a notebook may have no storage
  if (chosen) document.documentElement.dataset.theme = chosen;
})();
