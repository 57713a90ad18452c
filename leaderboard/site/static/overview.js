// Plots over all benchmarks, from the ranking: gains over full fine-tuning with their intervals, and a radar with one spoke a benchmark.
"use strict";
const Overview = (() => {
  const { COLOURS, figure, across, style, shortened } = Parts;
  const groupOf = (row) => [row.text("benchmark"), row.protocol].filter(Boolean).join(", ");

  // The benchmark alone where that is enough to tell one group from the others.
  const short = (group, groups) => {
    const [benchmark] = group.split(", ");
    return groups.filter((other) => other.split(", ")[0] === benchmark).length === 1 ? benchmark : group;
  };

  function show(view, state, remember) {
    const everything = Board.rankedRows();
    const kinds = Board.provenances.filter((kind) => everything.some((row) => row.provenance === kind));
    const kind = kinds.includes(state.query.get("evidence")) ? state.query.get("evidence") : kinds[0];
    const ofKind = everything.filter((row) => row.provenance === kind);
    const bases = [...new Set(ofKind.map((row) => row.text("base")))];
    const gains = (base) => ofKind.filter((row) => row.text("base") === base && row.number("percent") !== null).length;
    const base = bases.includes(state.query.get("base")) ? state.query.get("base") : [...bases].sort((a, b) => gains(b) - gains(a))[0];
    const again = (key) => (event) => { remember({ [key]: event.target.value }); show(view, state, remember); };
    const chooser = (label, key, options, chosen) => el("label", {}, label, el("select", { onchange: again(key) }, ...options.map((value) => el("option", { value, selected: value === chosen }, value))));
    const rows = ofKind.filter((row) => row.text("base") === base && row.number("percent") !== null);
    const figures = [intervals(rows, base, kind), radar(rows, base, kind), heat(rows, base, kind)].filter(Boolean);
    view.replaceChildren(el("div", { class: "tools" }, chooser("Evidence", "evidence", kinds, kind), base ? chooser("Base", "base", bases, base) : ""), ...figures);
    if (!figures.length) view.append(el("p", {}, kind ? `No ${kind} result of ${base} stands beside full fine-tuning of the same base.` : "Nothing is ranked yet."));
  }

  function intervals(rows, base, kind) {
    if (!rows.length) return null;
    const points = rows.map((row) => ({ group: groupOf(row), y: row.text("method"), x: row.number("percent"), low: row.number("low"), high: row.number("high"), seeds: row.number("fewest_seeds") }));
    const groups = [...new Set(points.map((p) => p.group))], methods = d3.groupSort(points, (list) => -d3.mean(list, (p) => p.x), (p) => p.y);
    const worst = Math.max(-50, d3.min(points, (p) => p.low ?? p.x));
    const left = Math.min(240, across() / 2);
    const drawn = Plot.plot({
      width: across(), height: 60 + groups.length * (34 + 20 * methods.length), marginLeft: left, marginTop: 30, marginBottom: 40, style,
      x: { label: "gain over full fine-tuning / %", domain: [Math.min(worst, 0) - 3, Math.max(3, d3.max(points, (p) => p.high ?? p.x)) + 3], clamp: true, grid: true }, y: { label: null, domain: methods }, fy: { label: null, domain: groups, axis: null, padding: 0.25 },
      marks: [
        Plot.text(groups, { fy: (group) => group, text: (group) => shortened(group, Math.floor(across() / 8)), frameAnchor: "top-left", textAnchor: "start", dy: -14, dx: 4 - left, fontWeight: 600, fill: "currentColor" }),
        Plot.axisY({ label: null, tickSize: 0, tickFormat: (method) => shortened(method, across() > 600 ? 34 : 20) }), Plot.frame({ stroke: "currentColor", strokeOpacity: 0.25 }), Plot.ruleX([0], { stroke: "currentColor" }),
        Plot.ruleY(points.filter((p) => p.low !== null), { fy: "group", y: "y", x1: "low", x2: "high", stroke: COLOURS[0], strokeWidth: 2 }),
        Plot.dot(points, { fy: "group", y: "y", x: (p) => Math.max(p.x, worst), fill: COLOURS[0], r: 4, symbol: (p) => (p.x < worst ? "triangle" : "circle"), tip: true, title: (p) => `${p.y}\n${p.x.toFixed(1)} %${p.low === null ? "" : `, ${p.low.toFixed(1)} to ${p.high.toFixed(1)} %`}` }),
      ],
    });
    return figure("Gain over full fine-tuning", `${base}, ${kind}: by what percentage errors are lower than with full fine-tuning of the same base, as a geometric mean over the tasks of a benchmark; bars are 95 % intervals over seeds, and a point without one has a single seed. Losses above 50 % stand at the left edge.`, drawn,
      { head: ["Benchmark and protocol", "Method", "Gain / %", "from / %", "to / %"], rows: points.map((p) => [p.group, p.y, p.x, p.low ?? "", p.high ?? ""]) });
  }

  // error of full fine-tuning over that of the method
  const ratio = (row) => 1 / (1 - row.number("percent") / 100);
  function table(rows) {
    const groups = [...new Set(rows.filter((row) => Board.words("benchmark").includes(row.text("benchmark"))).map(groupOf))];
    const methods = [...new Set(rows.map((row) => row.text("method")))];
    const of = new Map(rows.map((row) => [`${groupOf(row)}\n${row.text("method")}`, ratio(row)]));
    return { groups, methods, value: (group, method) => of.get(`${group}\n${method}`) };
  }

  function radar(rows, base, kind) {
    const { groups, methods, value } = table(rows);
    const spokes = groups.slice(0, 12);
    const lines = methods.filter((method) => spokes.every((group) => value(group, method) !== undefined)).map((method) => ({ name: method, shares: spokes.map((group) => value(group, method)) }));
    if (spokes.length < 3 || !lines.length) return null;
    const outer = Math.min(2, Math.max(1.25, Math.ceil(4 * d3.max(lines, (line) => d3.max(line.shares))) / 4));
    const drawn = Parts.radar(lines.slice(0, 8), spokes.map((group) => short(group, spokes)), [0.5, 1, ...(outer > 1 ? [outer] : [])], (share) => share.toFixed(2));
    return figure("By benchmark", `${base}, ${kind}: error of full fine-tuning over the error of the method, one spoke a benchmark and protocol; outside the ring of 1 is better than full fine-tuning.`, drawn.plot,
      { head: ["Method", ...spokes], rows: lines.map((line) => [line.name, ...line.shares]) }, drawn.legend);
  }

  function heat(rows, base, kind) {
    const { groups, methods, value } = table(rows);
    const cells = methods.flatMap((method) => groups.filter((group) => value(group, method) !== undefined).map((group) => ({ group, method, value: value(group, method) })));
    if (groups.length < 2 || methods.length < 2) return null;
    const order = d3.groupSort(cells, (list) => -d3.mean(list, (c) => Math.log(c.value)), (c) => c.method);
    const left = Math.min(240, across() / 2);
    const drawn = Plot.plot({
      width: Math.max(across(), left + 90 * groups.length), height: 150 + 28 * order.length, marginLeft: left, marginBottom: 110, style, padding: 0.04,
      x: { label: null, domain: groups, tickRotate: -30, tickFormat: (group) => shortened(short(group, groups), 30) }, y: { label: null, domain: order, tickFormat: (method) => shortened(method, across() > 600 ? 34 : 20) }, color: { type: "diverging-log", pivot: 1, domain: [0.5, 2], clamp: true, scheme: "BrBG" },
      marks: [Plot.cell(cells, { x: "group", y: "method", fill: "value", tip: true, title: (c) => `${c.method}\n${c.group}\n${c.value.toFixed(3)}` }), Plot.text(cells, { x: "group", y: "method", text: (c) => c.value.toFixed(2), fill: (c) => (c.value < 0.6 || c.value > 1.7 ? "white" : "black"), pointerEvents: "none" })],
    });
    return figure("Method by benchmark", `${base}, ${kind}: error of full fine-tuning over the error of the method; above 1, greenish, the method is better, below 1, brownish, full fine-tuning is.`, drawn,
      { head: ["Method", "Benchmark and protocol", "Error of full / error"], rows: cells.map((c) => [c.method, c.group, c.value]) });
  }
  return { show };
})();
