// What the plots of all views share: how a figure is framed and described, colours, symbols, fronts. Needs Observable Plot and d3.
"use strict";
const Parts = (() => {
  const SYMBOLS = { reproduced: "circle", submitted: "square", reported: "times", local: "triangle" };
  // Okabe and Ito without black and yellow, which vanish on one of the two backgrounds.
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a7a7a", "#a05195", "#8a6d3b", "#b33939"];
  const SIGNS = { reproduced: "●", submitted: "■", reported: "✕", local: "▲" };
  const name = (row) => `${row.text("base")}, ${row.text("method")}`;
  // The middle goes first: names begin with the base and end with the setting that tells two rows apart.
  const shortened = (text, limit) => (text.length > limit ? `${text.slice(0, Math.ceil(limit * 0.4))}…${text.slice(1 - Math.floor(limit * 0.6))}` : text);
  // Names short enough for an axis, each with the sign of its evidence; rows that would look alike get their place in brackets.
  function labels(rows, limit) {
    const found = new Map(), used = new Map();
    for (const row of rows) {
      const cut = `${shortened(name(row), limit)} ${SIGNS[row.provenance]}`;
      used.set(cut, (used.get(cut) ?? 0) + 1);
      found.set(row, used.get(cut) > 1 ? `${cut} (${used.get(cut)})` : cut);
    }
    return found;
  }
  // The numbers of a plot as a table, for those who cannot see it and those who want them exactly.
  function numbers(title, { head, rows }) {
    const cell = (value, place) => el(place ? "td" : "th", { class: typeof value === "number" ? "n" : null, scope: place ? null : "row" }, typeof value === "number" ? Board.number(value) : value);
    return el("details", { class: "numbers" }, el("summary", {}, "The numbers of this plot"), el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Numbers of ${title}` },
      el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cell)))))));
  }
  function figure(title, words, drawn, table, beside) {
    for (const part of drawn.querySelectorAll("[aria-label], [aria-description]")) { // Plot names groups that have no role to carry a name
      part.removeAttribute("aria-label");
      part.removeAttribute("aria-description");
    }
    drawn.setAttribute("role", "img");
    drawn.setAttribute("aria-label", `${title}. ${words}`);
    return el("figure", {}, el("h2", {}, title), el("div", { class: "drawn" }, el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": title }, drawn), beside ?? null), el("figcaption", {}, words), table ? numbers(title, table) : null);
  }
  const across = () => Math.max(320, Math.min(1200, document.getElementById("main").clientWidth - 40));
  const nameLimit = () => (across() > 600 ? 40 : 20);
  const compact = (value) => (value >= 1e4 ? d3.format("~s")(value) : Board.number(value)); // 200k: ticks have little room
  const style = { background: "var(--page)", color: "var(--text)", fontSize: "12px" };
  const logarithmic = (values) => values.length > 0 && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 5;

  // Smallest error for its cost: no other point is as good in both and better in one; drawn within one kind of evidence.
  function front(points) {
    const sorted = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
    let best = Infinity, last = null;
    return sorted.filter((p) => {
      const equal = last && p.x === last.x && p.y === last.y;
      if (!equal && p.y >= best) return false;
      best = p.y;
      last = p;
      return true;
    });
  }
  const scales = (rows) => ({ color: { domain: bases(rows), range: COLOURS }, symbol: { domain: Board.provenances, range: Board.provenances.map((p) => SYMBOLS[p]) } });
  // Lines of reported numbers are dashed: Plot takes one pattern a mark.
  const dashed = (points, options) => [Plot.line(points.filter((p) => p.evidence !== "reported"), options), Plot.line(points.filter((p) => p.evidence === "reported"), { ...options, strokeDasharray: "4 3" })];
  const bases = (rows) => [...new Set(rows.map((row) => row.text("base")))];
  function legend(rows) {
    const kinds = Board.provenances.filter((p) => rows.some((row) => row.provenance === p));
    const sample = (colour) => { const made = el("span", { "aria-hidden": "true" }, "■ "); made.style.color = colour; return made; };
    return el("p", { class: "legend" }, ...bases(rows).map((base, i) => el("span", {}, sample(COLOURS[i % COLOURS.length]), `${base}\u2003`)), ...kinds.map((kind) => el("span", {}, `${SIGNS[kind]} ${kind}\u2003`)));
  }

  // Names at the ends of the lines, pushed apart until no two overlap.
  function apart(points, scale, step = 13) {
    const last = [...d3.rollup(points, (line) => d3.greatest(line, (p) => p.x), (p) => p.id).values()].map((p) => ({ ...p, pixel: scale(p.y) })).sort((a, b) => a.pixel - b.pixel);
    for (let i = 1; i < last.length; i++) last[i].pixel = Math.max(last[i].pixel, last[i - 1].pixel + step);
    const bottom = Math.max(...scale.range());
    for (let i = last.length - 1, limit = bottom; i >= 0; i--, limit -= step) last[i].pixel = Math.min(last[i].pixel, limit);
    return last.map((p) => ({ ...p, at: scale.invert(p.pixel) }));
  }

  // Lines of { name, shares } around a pole, one spoke a label; rings says which shares are drawn, the largest being the edge.
  // A map projection makes the polar axes: latitudes near the pole, on a map so small that it is flat.
  function radar(lines, spokes, rings, shown) {
    const EDGE = 0.8, outer = Math.max(...rings), size = Math.min(560, across());
    const angle = (i) => (360 * i) / spokes.length, at = (share) => 90 - (Math.min(share, outer * 1.05) / outer) * EDGE;
    const points = lines.flatMap((line, which) => [...line.shares, line.shares[0]].map((share, i) => ({ which, name: line.name, longitude: angle(i % spokes.length), latitude: at(share), share, spoke: spokes[i % spokes.length] })));
    const projection = ({ width, height }) => d3.geoAzimuthalEquidistant().rotate([0, -90]).translate([width / 2, height / 2]).scale(Math.min(width, height) / 2 / (1.3 * EDGE * (Math.PI / 180))).clipAngle(10).precision(0.1);
    const plot = Plot.plot({
      width: Math.min(across(), size + 160), height: size, style, projection, color: { domain: lines.map((_, i) => i), range: COLOURS },
      marks: [
        Plot.geo(rings, { geometry: (share) => d3.geoCircle().center([0, 90]).radius((share / outer) * EDGE)(), stroke: "currentColor", strokeOpacity: (share) => (share === 1 ? 0.8 : 0.25) }),
        Plot.link(spokes, { x1: (_, i) => angle(i), y1: at(outer), x2: 0, y2: 90, stroke: "currentColor", strokeOpacity: 0.25 }),
        Plot.line(points, { x: "longitude", y: "latitude", z: "which", stroke: "which", strokeWidth: 2, curve: "linear-closed" }),
        Plot.dot(points, { x: "longitude", y: "latitude", stroke: "which", r: 3, tip: true, title: (p) => `${p.name}\n${p.spoke}: ${shown(p.share)}` }),
        Plot.text(rings, { x: angle(0.5), y: (share) => at(share), text: shown, fill: "currentColor", stroke: "var(--page)", strokeWidth: 3 }),
        Plot.text(spokes, { x: (_, i) => angle(i), y: 90 - 1.2 * EDGE, text: (label) => shortened(label, across() > 600 ? 22 : 14), fill: "currentColor" }),
      ],
    });
    const sample = (i) => { const made = el("span", { "aria-hidden": "true" }, "■ "); made.style.color = COLOURS[i % COLOURS.length]; return made; };
    return { plot, legend: el("p", { class: "legend" }, ...lines.map((line, i) => el("span", {}, sample(i), `${line.name}\u2003`))) };
  }
  return { radar, shortened, nameLimit, compact, COLOURS, SIGNS, name, labels, figure, across, style, logarithmic, front, dashed, bases, legend, apart, scales };
})();
