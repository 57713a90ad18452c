// Plots of a benchmark with Observable Plot. Kinds of evidence differ in symbol and are never on one front or one line.
"use strict";
const Plots = (() => {
  const SYMBOLS = { reproduced: "circle", submitted: "square", reported: "times", local: "triangle" };
  // Okabe and Ito without black and yellow, which vanish on one of the two backgrounds.
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a7a7a"];
  const COSTS = { trainable: "trained parameters", cpu_hours: "CPU hours", gpu_hours: "GPU hours", memory_mib: "peak memory / MiB", forgetting: "forgetting (force error after / before)", parameters: "parameters of the base" };
  // degrees around the pole that the outer ring of the radar has: small, so that the map is flat
  const RING = 0.8;
  const name = (row) => `${row.texts.base}, ${row.texts.method}`;
  const short = (row, limit = 34) => (name(row).length > limit ? `${name(row).slice(0, limit - 1)}…` : name(row));

  function show(view, state, remember) {
    const made = Board.benchmarkRows(state.name), columns = Board.benchmarkColumns(made, state.name).filter((column) => column.metric);
    const protocols = [...new Set(made.rows.map((row) => row.protocol))];
    const asked = state.query.get("protocol") ?? "";
    const protocol = protocols.find((p) => p === asked) ?? protocols.find((p) => p && asked.endsWith(p)) ?? mostRows(protocols, made.rows);
    const rows = made.rows.filter((row) => row.protocol === protocol);
    const errors = columns.filter((column) => column.better && rows.some((row) => column.value(row) !== null));
    const metric = errors.find((column) => column.key === state.query.get("metric")) ?? errors[0];
    const costs = Object.keys(COSTS).filter((key) => rows.filter((row) => row.numbers[key] !== null).length > 1);
    const cost = costs.includes(state.query.get("x")) ? state.query.get("x") : costs[0];
    const again = (key) => (event) => { remember({ [key]: event.target.value }); show(view, state, remember); };
    const chooser = (label, key, options, chosen) => el("label", {}, label, el("select", { onchange: again(key) }, ...options.map(([value, text]) => el("option", { value, selected: value === chosen }, text))));
    const tools = el("div", { class: "tools" }, chooser("Protocol", "protocol", protocols.map((p) => [p, p || "–"]), protocol),
      chooser("Error", "metric", errors.map((c) => [c.key, `${c.label} / ${c.unit}`]), metric?.key), cost ? chooser("Against", "x", costs.map((key) => [key, COSTS[key]]), cost) : "");
    const figures = metric ? [pareto(rows, metric, cost), seeds(rows, metric), temperature(rows, columns, metric), heat(rows, columns, metric), radar(rows, columns, metric)] : [];
    view.replaceChildren(tools, ...figures.filter(Boolean));
    if (!metric) view.append(el("p", {}, "No error to draw."));
  }
  const mostRows = (protocols, rows) => protocols.map((p) => [rows.filter((row) => row.protocol === p).length, p]).sort((a, b) => b[0] - a[0])[0]?.[1];

  function figure(title, words, drawn, table) {
    for (const part of drawn.querySelectorAll("[aria-label], [aria-description]")) { // Plot names groups that have no role to carry a name
      part.removeAttribute("aria-label");
      part.removeAttribute("aria-description");
    }
    drawn.setAttribute("role", "img");
    drawn.setAttribute("aria-label", `${title}. ${words}`);
    return el("figure", {}, el("h2", {}, title), el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": title }, drawn), el("figcaption", {}, words), table ?? null);
  }
  const across = () => Math.max(320, Math.min(960, document.getElementById("main").clientWidth - 40));
  const style = { background: "var(--page)", color: "var(--text)", fontSize: "12px" };
  const logarithmic = (values) => values.length > 0 && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 20;

  // Smallest error for its cost: no other point is as good in both and better in one; drawn within one kind of evidence.
  function front(points) {
    const sorted = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
    let best = Infinity;
    return sorted.filter((p) => (p.y < best ? ((best = p.y), true) : false));
  }
  function pareto(rows, metric, cost) {
    if (!cost || metric.better !== "lower") return null;
    const points = rows.map((row) => ({ x: row.numbers[cost], y: metric.value(row), deviation: metric.deviation(row), name: name(row), evidence: row.provenance, base: row.texts.base })).filter((p) => p.x !== null && p.y !== null);
    if (points.length < 2) return null;
    // a logarithm has no place for the base itself, which trains nothing: it stands at the left edge and its label says 0
    const positive = points.map((p) => p.x).filter((x) => x > 0), edge = positive.length ? Math.min(...positive) / 3 : 1;
    const log = logarithmic(positive);
    for (const p of points) p.at = log && p.x <= 0 ? edge : p.x;
    const fronts = Board.provenances.flatMap((evidence) => front(points.filter((p) => p.evidence === evidence)).map((p) => ({ ...p })));
    const drawn = Plot.plot({
      width: across(), height: 380, marginLeft: 60, marginBottom: 44, style, color: { domain: bases(rows), range: COLOURS, legend: false }, symbol: { domain: Board.provenances, range: Board.provenances.map((p) => SYMBOLS[p]) },
      x: { label: COSTS[cost], type: log ? "log" : "linear", grid: true, tickFormat: (v) => Board.number(v) }, y: { label: `${metric.label} / ${metric.unit}`, type: logarithmic(points.map((p) => p.y)) ? "log" : "linear", grid: true, tickFormat: (v) => Board.number(v) },
      marks: [
        ...dashed(fronts, { x: "at", y: "y", z: "evidence", curve: "step-after", stroke: "currentColor", strokeOpacity: 0.6 }),
        Plot.ruleX(points.filter((p) => p.deviation), { x: "at", y1: (p) => Math.max(p.y - p.deviation, p.y / 10), y2: (p) => p.y + p.deviation, stroke: "base" }),
        Plot.dot(points, { x: "at", y: "y", stroke: "base", symbol: "evidence", r: 5, strokeWidth: 2, tip: true, title: (p) => `${p.name}\n${p.evidence}\n${Board.number(p.x)} ${COSTS[cost]}\n${Board.number(p.y)} ${metric.unit}` }),
      ],
    });
    return el("div", {}, figure("Error against cost", `${metric.label} against ${COSTS[cost]}, ${points.length} results; the line joins those that no other one beats in both, within one kind of evidence (dashed: reported).${log && points.some((p) => p.x <= 0) ? " Results that train nothing stand at the left edge." : ""}`, drawn), legend(rows));
  }
  // Lines of reported numbers are dashed: Plot takes one pattern a mark.
  const dashed = (points, options) => [Plot.line(points.filter((p) => p.evidence !== "reported"), options), Plot.line(points.filter((p) => p.evidence === "reported"), { ...options, strokeDasharray: "4 3" })];
  const bases = (rows) => [...new Set(rows.map((row) => row.texts.base))];
  function legend(rows) {
    const signs = { circle: "●", square: "■", times: "✕", triangle: "▲" };
    const kinds = Board.provenances.filter((p) => rows.some((row) => row.provenance === p));
    const sample = (colour) => { const made = el("span", { "aria-hidden": "true" }, "■ "); made.style.color = colour; return made; };
    return el("p", { class: "legend" }, ...bases(rows).map((base, i) => el("span", {}, sample(COLOURS[i % COLOURS.length]), `${base}\u2003`)), ...kinds.map((kind) => el("span", {}, `${signs[SYMBOLS[kind]]} ${kind}\u2003`)));
  }

  function seeds(rows, metric) {
    const points = rows.map((row) => ({ y: short(row, 48) + (row.provenance === "reported" ? " ✕" : ""), x: metric.value(row), deviation: metric.deviation(row), base: row.texts.base, evidence: row.provenance, n: row.numbers.seeds })).filter((p) => p.x !== null).sort((a, b) => Board.provenances.indexOf(a.evidence) - Board.provenances.indexOf(b.evidence) || a.x - b.x).slice(0, 60);
    if (!points.length) return null;
    const drawn = Plot.plot({
      width: across(), height: 60 + 20 * new Set(points.map((p) => p.evidence + p.y)).size, marginLeft: Math.min(300, across() / 2), marginBottom: 40, style, color: { domain: bases(rows), range: COLOURS }, symbol: { domain: Board.provenances, range: Board.provenances.map((p) => SYMBOLS[p]) },
      x: { label: `${metric.label} / ${metric.unit}`, type: logarithmic(points.map((p) => p.x)) ? "log" : "linear", grid: true, tickFormat: (v) => Board.number(v) }, y: { label: null, domain: [...new Set(points.map((p) => p.y))] },
      marks: [Plot.ruleY(points.filter((p) => p.deviation), { y: "y", x1: (p) => Math.max(p.x - p.deviation, p.x / 10), x2: (p) => p.x + p.deviation, stroke: "base", strokeWidth: 2 }), Plot.dot(points, { x: "x", y: "y", stroke: "base", symbol: "evidence", strokeWidth: 2, r: 4, tip: true, title: (p) => `${p.y}\n${Board.number(p.x)}${p.deviation ? ` ± ${Board.number(p.deviation)}` : ""} ${metric.unit}` })],
    });
    return figure("Spread over seeds", `${metric.label}; bars are one standard deviation over seeds, or over the runs of the paper; a point without a bar is one seed or a paper that prints none.`, drawn);
  }

  function temperature(rows, columns, metric) {
    const degrees = (column) => Number(/(\d+) ?K\b/.exec(column.metric.test.replace("_", " "))?.[1] ?? NaN);
    const same = columns.filter((c) => c.metric.name === metric.metric.name && c.data === metric.data && !Number.isNaN(degrees(c)));
    if (same.length < 2) return null;
    const points = rows.flatMap((row) => same.filter((c) => c.value(row) !== null).map((c) => ({ x: degrees(c), y: c.value(row), deviation: c.deviation(row), name: name(row), id: row.key, base: row.texts.base, evidence: row.provenance })));
    const height = 420, log = logarithmic(points.map((p) => p.y)), extent = d3.extent(points, (p) => p.y);
    const scale = (log ? d3.scaleLog() : d3.scaleLinear()).domain(log ? [extent[0] / 1.15, extent[1] * 1.15] : [0, extent[1] * 1.05]).range([height - 40, 20]);
    const drawn = Plot.plot({
      width: across(), height, marginLeft: 60, marginRight: 190, marginTop: 20, marginBottom: 40, style, color: { domain: bases(rows), range: COLOURS }, symbol: { domain: Board.provenances, range: Board.provenances.map((p) => SYMBOLS[p]) },
      x: { label: "temperature of the test set / K", ticks: [...new Set(points.map((p) => p.x))], tickFormat: String, insetLeft: 20, insetRight: 20 }, y: { label: `${metric.metric.label} / ${metric.unit}`, type: log ? "log" : "linear", domain: scale.domain(), grid: true, tickFormat: (v) => Board.number(v) },
      marks: [...dashed(points, { x: "x", y: "y", z: "id", stroke: "base" }), Plot.ruleX(points.filter((p) => p.deviation), { x: "x", y1: (p) => p.y - p.deviation, y2: (p) => p.y + p.deviation, stroke: "base" }), Plot.dot(points, { x: "x", y: "y", stroke: "base", symbol: "evidence", tip: true, title: (p) => `${p.name}\n${p.x} K: ${Board.number(p.y)} ${metric.unit}` }), Plot.text(apart(points, scale), { x: "x", y: "at", text: (p) => (p.name.length > 28 ? `${p.name.slice(0, 27)}…` : p.name), textAnchor: "start", dx: 8, fill: "currentColor" })],
    });
    return figure("Error by temperature", `${metric.metric.label} on the test sets of ${metric.data}; dashed lines are reported.`, drawn);
  }

  // Names at the ends of the lines, pushed apart until no two overlap.
  function apart(points, scale) {
    const last = [...d3.rollup(points, (line) => d3.greatest(line, (p) => p.x), (p) => p.id).values()].map((p) => ({ ...p, pixel: scale(p.y) })).sort((a, b) => a.pixel - b.pixel);
    for (let i = 1; i < last.length; i++) last[i].pixel = Math.max(last[i].pixel, last[i - 1].pixel + 13);
    return last.map((p) => ({ ...p, at: scale.invert(p.pixel) }));
  }

  function heat(rows, columns, metric) {
    const same = columns.filter((c) => c.metric.name === metric.metric.name && rows.some((row) => c.value(row) !== null));
    const one = new Set(same.map((c) => c.data)).size === 1;
    const label = (c) => [one ? "" : c.data.replace(/^[^/]+\//, ""), same.some((other) => other !== c && other.data === c.data) ? c.metric.test : ""].filter(Boolean).join(" ");
    const cells = Board.provenances.flatMap((evidence) => {
      const mean = (row) => d3.mean(same, (c) => (c.value(row) === null ? null : Math.log(c.value(row) + 1e-9))) ?? Infinity;
      const members = rows.filter((row) => row.provenance === evidence).sort((a, b) => mean(a) - mean(b));
      return same.flatMap((c) => {
        const best = Math.min(...members.map((row) => c.value(row)).filter((v) => v !== null));
        return members.filter((row) => c.value(row) !== null).map((row) => ({ x: label(c), y: `${short(row, 44)}${evidence === "reported" ? " ✕" : ""}`, ratio: c.value(row) / best, value: c.value(row) }));
      });
    }).slice(0, 1200);
    if (new Set(cells.map((c) => c.x)).size < 2 || new Set(cells.map((c) => c.y)).size < 2) return null;
    const drawn = Plot.plot({
      width: Math.max(across(), 320 + 64 * same.length), height: 130 + 24 * new Set(cells.map((c) => c.y)).size, marginLeft: 290, marginBottom: 90, style, padding: 0.04,
      x: { label: null, tickRotate: -40 }, y: { label: null, domain: [...new Set(cells.map((c) => c.y))] }, color: { type: "log", domain: [1, 10], clamp: true, scheme: "cividis", reverse: true },
      marks: [Plot.cell(cells, { x: "x", y: "y", fill: "ratio", tip: true, title: (c) => `${c.y}\n${c.x}: ${Board.number(c.value)} ${metric.unit}, ${c.ratio.toFixed(2)} of the best` }), Plot.text(cells, { x: "x", y: "y", text: (c) => Board.number(c.value), fill: (c) => (c.ratio < 2.6 ? "black" : "white") })],
    });
    return figure("Method by data set", `${metric.metric.label} / ${metric.unit}; colours are the ratio to the best of the same kind of evidence (✕: reported), 1 to 10 and above.`, drawn);
  }

  // Each spoke is a data set or test set; further out is better: the best error of the protocol over that of the method.
  function radar(rows, columns, metric) {
    const spokes = columns.filter((c) => c.metric.name === metric.metric.name && rows.filter((row) => c.value(row) !== null).length > 1).slice(0, 12);
    const evidence = Board.provenances.map((p) => rows.filter((row) => row.provenance === p && spokes.every((c) => c.value(row) > 0))).sort((a, b) => b.length - a.length)[0];
    if (spokes.length < 3 || !evidence || evidence.length < 2 || metric.better !== "lower") return null;
    const chosen = evidence.slice(0, 6);
    const best = new Map(spokes.map((c) => [c, Math.min(...evidence.map((row) => c.value(row)))]));
    const angle = (i) => (360 * i) / spokes.length;
    const at = (radius) => 90 - radius * RING;
    const points = chosen.flatMap((row) => [...spokes, spokes[0]].map((c, i) => ({ name: short(row), longitude: angle(i % spokes.length), latitude: at(best.get(c) / c.value(row)), share: best.get(c) / c.value(row), spoke: c.label })));
    const projection = ({ width, height }) => d3.geoAzimuthalEquidistant().rotate([0, -90]).translate([width / 2, height / 2]).scale(Math.min(width, height) / 2 / (1.3 * RING * (Math.PI / 180))).clipAngle(10).precision(0.1);
    const size = Math.min(560, across());
    const drawn = Plot.plot({
      width: size, height: size, style, projection, color: { domain: chosen.map((row) => short(row)), range: COLOURS },
      marks: [
        Plot.geo([0.25, 0.5, 0.75, 1], { geometry: (r) => d3.geoCircle().center([0, 90]).radius(r * RING)(), stroke: "currentColor", strokeOpacity: 0.25 }),
        Plot.link(spokes, { x1: (_, i) => angle(i), y1: at(1), x2: 0, y2: 90, stroke: "currentColor", strokeOpacity: 0.25 }),
        Plot.text(spokes, { x: (_, i) => angle(i), y: at(1.14), text: (c) => c.label.split(" · ")[0].slice(0, 18), fill: "currentColor" }),
        Plot.line(points, { x: "longitude", y: "latitude", z: "name", stroke: "name", strokeWidth: 2, curve: "linear-closed" }),
        Plot.dot(points, { x: "longitude", y: "latitude", stroke: "name", r: 3, tip: true, title: (p) => `${p.name}\n${p.spoke}: ${(100 * p.share).toFixed(0)} % of the best` }),
      ],
    });
    const colours = el("p", { class: "legend" }, ...chosen.map((row, i) => { const sign = el("span", { "aria-hidden": "true" }, "■ "); sign.style.color = COLOURS[i]; return el("span", {}, sign, `${name(row)}\u2003`); }));
    return el("div", {}, figure("Profile", `${metric.metric.label}, ${evidence[0].provenance}: best error over the method's error on each of ${spokes.length} test sets, 1 on the outer ring; the first ${chosen.length} of ${evidence.length} rows.`, drawn), colours);
  }
  return { show };
})();
