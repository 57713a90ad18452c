// Elements and scripts, for every other script of the site.
"use strict";
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
// Scripts by their addresses, one after the other, each once; from a disk too, where nothing else can be fetched.
const loadScripts = (() => {
  const asked = new Map();
  const load = (source) => new Promise((done, failed) => document.head.append(el("script", { src: source, onload: done, onerror: () => failed(new Error(`${source} could not be loaded.`)) })));
  return async (...sources) => {
    for (const source of sources) {
      if (!asked.has(source)) asked.set(source, load(source));
      await asked.get(source);
    }
  };
})();
const PLOTTING = ["vendor/d3.min.js", "vendor/plot.umd.min.js", "static/plot_parts.js"];
