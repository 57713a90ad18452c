// Plots of a benchmark with Observable Plot. Kinds of evidence differ in symbol and are never on one front or one line.
"use strict";
const Plots = (() => {
  const { name, labels, nameLimit, compact, shortened, figure, across, style, logarithmic, front, dashed, legend, apart, scales } = Parts;
  const COSTS = { trainable: "trained parameters", cpu_hours: "CPU hours", gpu_hours: "GPU hours", memory_mib: "peak memory / MiB", forgetting: `forgetting (force error after / before on ${Board.data.forgetting_of})`, parameters: "parameters of the base" };

  function show(view, state, remember) {
    const made = Board.benchmarkRows(state.name), columns = Board.benchmarkColumns(made, state.name).filter((column) => column.metric);
    const protocols = [...new Set(made.rows.map((row) => row.protocol))];
    const asked = state.query.get("protocol") ?? "";
    const protocol = protocols.find((p) => p === asked) ?? protocols.find((p) => p && asked.endsWith(p)) ?? firstShown(protocols, made.rows);
    const rows = made.rows.filter((row) => row.protocol === protocol);
    const errors = columns.filter((column) => column.better && rows.some((row) => column.value(row) !== null));
    const metric = errors.find((column) => column.key === state.query.get("metric")) ?? mostShared(errors, rows);
    const costs = Object.keys(COSTS).filter((key) => rows.filter((row) => row.number(key) !== null).length > 1);
    const cost = costs.includes(state.query.get("x")) ? state.query.get("x") : costs[0];
    const again = (key) => (event) => { remember({ [key]: event.target.value }); show(view, state, remember); };
    const chooser = (label, key, options, chosen) => el("label", {}, label, el("select", { onchange: again(key) }, ...options.map(([value, text]) => el("option", { value, selected: value === chosen }, text))));
    const tools = el("div", { class: "tools" }, chooser("Protocol", "protocol", protocols.map((p) => [p, p || "–"]), protocol),
      chooser("Error", "metric", errors.map((c) => [c.key, c.unit ? `${c.label} / ${c.unit}` : c.label]), metric?.key), cost ? chooser("Against", "x", costs.map((key) => [key, COSTS[key]]), cost) : "");
    const figures = metric ? [pareto(rows, metric, cost), seeds(rows, metric), temperature(rows, columns, metric), heat(rows, columns, metric), radar(rows, columns, metric)].filter(Boolean) : [];
    view.replaceChildren(tools, figures.length ? legend(rows) : "", ...figures);
    if (!metric) view.append(el("p", {}, "No error to draw."));
  }
  // What a reader meets first: the protocol with the most of our own results, else with the most results.
  const firstShown = (protocols, rows) => protocols.map((p) => {
    const members = rows.filter((row) => row.protocol === p);
    return [members.filter((row) => ["reproduced", "submitted"].includes(row.provenance)).length, members.length, p];
  }).sort((a, b) => b[0] - a[0] || b[1] - a[1])[0]?.[2];
  function mostShared(errors, rows) {
    const counted = errors.filter((c) => c.better === "lower").map((c) => [rows.filter((row) => c.value(row) !== null).length, c]);
    return counted.sort((a, b) => b[0] - a[0])[0]?.[1] ?? errors[0];
  }
  const ofWhat = (column) => (column.unit ? `${column.label} / ${column.unit}` : column.label);
  const bars = (p, centre) => [Math.max(centre - p.deviation, centre / 10), centre + p.deviation];

  function pareto(rows, metric, cost) {
    if (!cost || metric.better !== "lower") return null;
    const points = rows.map((row) => ({ x: row.number(cost), y: metric.value(row), deviation: metric.deviation(row), name: name(row), evidence: row.provenance, base: row.text("base") })).filter((p) => p.x !== null && p.y !== null);
    if (points.length < 2) return null;
    // a logarithm has no place for the base itself, which trains nothing: it stands at the left edge
    const positive = points.map((p) => p.x).filter((x) => x > 0), edge = positive.length ? Math.min(...positive) / 3 : 1;
    const log = logarithmic(positive);
    for (const p of points) p.at = log && p.x <= 0 ? edge : p.x;
    const fronts = Board.provenances.flatMap((evidence) => front(points.filter((p) => p.evidence === evidence)));
    const place = (p) => (log ? Math.log(p.at) : p.at), right = d3.quantile(d3.extent(points, place), 0.7);
    const named = across() > 600 && fronts.length <= 10 ? fronts : []; // more would hide one another
    const beside = (members, textAnchor) => Plot.text(members, { x: "at", y: "y", text: (p) => shortened(p.name, 40), textAnchor, dx: textAnchor === "end" ? -8 : 8, dy: -8, fill: "currentColor", stroke: "var(--page)", strokeWidth: 4 });
    const drawn = Plot.plot({
      width: across(), height: 400, marginLeft: 60, marginTop: 36, marginBottom: 44, style, ...scales(rows),
      x: { label: COSTS[cost], type: log ? "log" : "linear", grid: true, inset: 12, ticks: Math.max(3, across() / 160), tickFormat: compact },
      y: { label: ofWhat(metric), type: logarithmic(points.map((p) => p.y)) ? "log" : "linear", grid: true, inset: 8, tickFormat: (v) => Board.number(v) },
      marks: [
        ...dashed(fronts, { x: "at", y: "y", z: "evidence", curve: "step-after", stroke: "currentColor", strokeOpacity: 0.6 }),
        Plot.ruleX(points.filter((p) => p.deviation), { x: "at", y1: (p) => bars(p, p.y)[0], y2: (p) => bars(p, p.y)[1], stroke: "base" }),
        beside(named.filter((p) => place(p) <= right), "start"), beside(named.filter((p) => place(p) > right), "end"),
        Plot.dot(points, { x: "at", y: "y", stroke: "base", symbol: "evidence", r: 5, strokeWidth: 2, tip: true, title: (p) => `${p.name}\n${p.evidence}\n${Board.number(p.x)} ${COSTS[cost]}\n${Board.number(p.y)} ${metric.unit}` }),
      ],
    });
    const words = `${metric.label} against ${COSTS[cost]}, ${points.length} results; the line joins those that no other one beats in both, within one kind of evidence (dashed: reported).${log && points.some((p) => p.x <= 0) ? " Results that train nothing stand at the left edge." : ""}`;
    return figure("Error against cost", words, drawn, { head: ["Base, method", "Evidence", COSTS[cost], ofWhat(metric), "On the front"], rows: points.map((p) => [p.name, p.evidence, p.x, p.y, fronts.includes(p) ? "yes" : ""]) });
  }

  function seeds(rows, metric) {
    const shown = labels(rows, nameLimit());
    const points = rows.map((row) => ({ y: shown.get(row), x: metric.value(row), deviation: metric.deviation(row), name: name(row), base: row.text("base"), evidence: row.provenance, n: row.number("seeds") })).filter((p) => p.x !== null)
      .sort((a, b) => Board.provenances.indexOf(a.evidence) - Board.provenances.indexOf(b.evidence) || a.x - b.x).slice(0, 60);
    if (!points.length) return null;
    const drawn = Plot.plot({
      width: across(), height: 60 + 20 * points.length, marginLeft: Math.min(310, across() / 2), marginBottom: 40, style, ...scales(rows),
      x: { label: ofWhat(metric), type: logarithmic(points.map((p) => p.x)) ? "log" : "linear", grid: true, insetLeft: 12, ticks: Math.max(3, across() / 130), tickFormat: (v) => Board.number(v) }, y: { label: null, domain: points.map((p) => p.y) },
      marks: [
        Plot.ruleY(points.filter((p) => p.deviation), { y: "y", x1: (p) => bars(p, p.x)[0], x2: (p) => bars(p, p.x)[1], stroke: "base", strokeWidth: 2 }),
        Plot.dot(points, { x: "x", y: "y", stroke: "base", symbol: "evidence", strokeWidth: 2, r: 4, tip: true, title: (p) => `${p.y}\n${Board.number(p.x)}${p.deviation ? ` ± ${Board.number(p.deviation)}` : ""} ${metric.unit}` }),
      ],
    });
    return figure("Spread over seeds", `${metric.label}; bars are one standard deviation over seeds, or over the runs of the paper; a point without a bar is one seed or a paper that prints none.`, drawn,
      { head: ["Base, method", "Evidence", ofWhat(metric), "Standard deviation", "Seeds"], rows: points.map((p) => [p.name, p.evidence, p.x, p.deviation ?? "", p.n]) });
  }

  function temperature(rows, columns, metric) {
    const degrees = (column) => Number(/(\d+) ?K\b/.exec(column.metric.test.replace("_", " "))?.[1] ?? NaN);
    const same = columns.filter((c) => c.metric.name === metric.metric.name && c.data === metric.data && !Number.isNaN(degrees(c)));
    if (same.length < 2) return null;
    const points = rows.flatMap((row) => same.filter((c) => c.value(row) !== null).map((c) => ({ x: degrees(c), y: c.value(row), deviation: c.deviation(row), name: name(row), id: row.key, base: row.text("base"), evidence: row.provenance })));
    if (new Set(points.map((p) => p.x)).size < 2) return null;
    const lines = new Set(points.map((p) => p.id)).size, beside = across() > 600;
    const height = Math.max(420, beside ? 60 + 13 * lines : 0), log = logarithmic(points.map((p) => p.y)), extent = d3.extent(points, (p) => p.y);
    const scale = (log ? d3.scaleLog() : d3.scaleLinear()).domain(log ? [extent[0] / 1.15, extent[1] * 1.15] : [0, extent[1] * 1.05]).range([height - 40, 20]);
    const drawn = Plot.plot({
      width: across(), height, marginLeft: 60, marginRight: beside ? 220 : 20, marginTop: 20, marginBottom: 40, style, ...scales(rows),
      x: { label: "temperature of the test set / K", ticks: [...new Set(points.map((p) => p.x))], tickFormat: String, insetLeft: 20, insetRight: 20 }, y: { label: `${metric.metric.label} / ${metric.unit}`, type: log ? "log" : "linear", domain: scale.domain(), grid: true, tickFormat: (v) => Board.number(v) },
      marks: [
        ...dashed(points, { x: "x", y: "y", z: "id", stroke: "base" }),
        Plot.ruleX(points.filter((p) => p.deviation), { x: "x", y1: (p) => Math.max(p.y - p.deviation, scale.domain()[0]), y2: (p) => p.y + p.deviation, stroke: "base" }),
        Plot.dot(points, { x: "x", y: "y", stroke: "base", symbol: "evidence", tip: true, title: (p) => `${p.name}\n${p.evidence}\n${p.x} K: ${Board.number(p.y)} ${metric.unit}` }),
        beside ? Plot.text(apart(points, scale), { x: "x", y: "at", text: (p) => shortened(p.name, 32), textAnchor: "start", dx: 8, fill: "currentColor" }) : null,
      ],
    });
    return figure("Error by temperature", `${metric.metric.label} on the test sets of ${metric.data}; dashed lines are reported.`, drawn,
      { head: ["Base, method", "Evidence", ...same.map((c) => `${degrees(c)} K`)], rows: rows.filter((row) => same.some((c) => c.value(row) !== null)).map((row) => [name(row), row.provenance, ...same.map((c) => c.value(row) ?? "")]) });
  }

  function heat(rows, columns, metric) {
    const same = columns.filter((c) => c.metric.name === metric.metric.name && rows.some((row) => c.value(row) !== null));
    const one = new Set(same.map((c) => c.data)).size === 1;
    const label = (c) => [one ? "" : c.data.replace(/^[^/]+\//, ""), same.some((other) => other !== c && other.data === c.data) ? c.metric.test : ""].filter(Boolean).join(" ");
    const shown = labels(rows, nameLimit());
    const cells = Board.provenances.flatMap((evidence) => {
      const mean = (row) => d3.mean(same, (c) => (c.value(row) === null ? null : Math.log(c.value(row) + 1e-9))) ?? Infinity;
      const members = rows.filter((row) => row.provenance === evidence).sort((a, b) => mean(a) - mean(b));
      const best = new Map(same.map((c) => [c, d3.min(members, (row) => c.value(row))]));
      return members.flatMap((row) => same.filter((c) => c.value(row) !== null).map((c) => ({ x: label(c), y: shown.get(row), name: name(row), evidence, ratio: c.value(row) / best.get(c), value: c.value(row) })));
    }).slice(0, 1200);
    const names = [...new Set(cells.map((c) => c.y))];
    if (new Set(cells.map((c) => c.x)).size < 2 || names.length < 2) return null;
    const wide = across() > 600;
    const drawn = Plot.plot({
      width: Math.max(across(), (wide ? 330 : 190) + 58 * same.length), height: 130 + 24 * names.length, marginLeft: wide ? 310 : 170, marginBottom: 90, style, padding: 0.04,
      x: { label: null, tickRotate: -40 }, y: { label: null, domain: names }, color: { type: "log", domain: [1, 10], clamp: true, scheme: "cividis", reverse: true },
      marks: [Plot.cell(cells, { x: "x", y: "y", fill: "ratio", tip: true, title: (c) => `${c.name}\n${c.evidence}\n${c.x}: ${Board.number(c.value)} ${metric.unit}, ${c.ratio.toFixed(2)} of the best` }), Plot.text(cells, { x: "x", y: "y", text: (c) => Board.number(c.value), fill: (c) => (c.ratio < 2.6 ? "black" : "white"), pointerEvents: "none" })],
    });
    return figure("Method by data set", `${metric.metric.label} / ${metric.unit}; colours are the ratio to the best of the same kind of evidence (✕: reported), from 1, the lightest, to 10 and above, the darkest.`, drawn,
      { head: ["Base, method", "Evidence", "Test set", `${metric.metric.label} / ${metric.unit}`, "Ratio to the best"], rows: cells.map((c) => [c.name, c.evidence, c.x, c.value, c.ratio]) });
  }

  // Each spoke is a data set or test set; further out is better: the best error of the protocol over that of the method.
  function radar(rows, columns, metric) {
    const spokes = columns.filter((c) => c.metric.name === metric.metric.name && rows.filter((row) => c.value(row) !== null).length > 1).slice(0, 12);
    const evidence = Board.provenances.map((p) => rows.filter((row) => row.provenance === p && spokes.every((c) => c.value(row) > 0))).find((members) => members.length > 1);
    if (spokes.length < 3 || !evidence || metric.better !== "lower") return null;
    const best = new Map(spokes.map((c) => [c, Math.min(...evidence.map((row) => c.value(row)))]));
    const share = (row, c) => best.get(c) / c.value(row);
    const chosen = [...evidence].sort((a, b) => d3.mean(spokes, (c) => share(b, c)) - d3.mean(spokes, (c) => share(a, c))).slice(0, 6);
    const one = new Set(spokes.map((c) => c.data)).size === 1;
    const lines = chosen.map((row) => ({ name: name(row), shares: spokes.map((c) => share(row, c)) }));
    const drawn = Parts.radar(lines, spokes.map((c) => (one ? c.metric.test : c.data.replace(/^[^/]+\//, "") + (c.metric.test === "test" ? "" : ` ${c.metric.test}`))), [0.25, 0.5, 0.75, 1], (share) => `${(100 * share).toFixed(0)} %`);
    return figure("Profile", `${metric.metric.label}, ${evidence[0].provenance}: best error over the method's error on each of ${spokes.length} test sets, 1 on the outer ring; the best ${chosen.length} of ${evidence.length} rows.`, drawn.plot,
      { head: ["Base, method", ...spokes.map((c) => c.label)], rows: lines.map((line) => [line.name, ...line.shares]) }, drawn.legend);
  }
  return { show };
})();
