// The chosen theme, before anything is painted. Without a choice the page follows the system.
"use strict";
(() => {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
})();
