// Light or dark: what the system says, unless the reader chose. Runs before the page is drawn, so that nothing flashes.
"use strict";
(() => {
  const key = "equizoo-board-theme";
  const stored = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const chosen = stored();
  if (chosen) document.documentElement.dataset.theme = chosen;
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme")?.addEventListener("click", () => {
      const dark = document.documentElement.dataset.theme
        ? document.documentElement.dataset.theme === "dark"
        : matchMedia("(prefers-color-scheme: dark)").matches;
      const theme = dark ? "light" : "dark";
      document.documentElement.dataset.theme = theme;
      try { localStorage.setItem(key, theme); } catch { /* a browser that stores nothing still switches */ }
      document.dispatchEvent(new CustomEvent("themechange"));
    });
  });
})();
