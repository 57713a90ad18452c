// The plots of a record's page: its errors beside the base's own and beside others of the same protocol and kind of evidence. The page is
// whole without them; data and library are loaded when the reader comes near.
"use strict";
(() => {
  const place = document.getElementById("plots");
  const files = ["data.js", "static/board.js", ...PLOTTING].map((file) => `../${file}`);
  const before = new Map(JSON.parse(place.dataset.before).map(([test, name, value]) => [`${test}\n${name}`, value]));
  let drawn = null;

  function draw() {
    const { figure, across, style, name, labels, logarithmic, COLOURS } = Parts;
    const record = Board.data.ids.indexOf(place.dataset.record);
    const made = Board.benchmarkRows(Board.text("benchmark", record));
    const mine = made.rows.find((row) => row.records.includes(record));
    const set = Board.text("data", record);
    const errors = Board.benchmarkColumns(made, Board.text("benchmark", record)).filter((column) => column.metric && column.better === "lower" && column.data === set && mine.cells.has(column.key));
    if (!errors.length) return;
    // what others have too is worth a look first
    const rows = made.rows.filter((row) => row.section === mine.section);
    const shared = (column) => rows.filter((row) => column.value(row) !== null).length;
    let chosen = errors.reduce((best, column) => (shared(column) > shared(best) ? column : best));
    const tests = () => errors.filter((column) => column.metric.name === chosen.metric.name);
    const zeroShot = (column) => before.get(`${column.metric.test}\n${column.metric.name}`) ?? null;
    const unit = () => (chosen.unit ? ` / ${chosen.unit}` : "");

    function beside() {
      const shown = labels(rows, Parts.nameLimit());
      const points = rows.filter((row) => chosen.value(row) !== null).map((row) => ({ y: shown.get(row), x: chosen.value(row), deviation: chosen.deviation(row), name: name(row), mine: row === mine, n: row.seeds })).sort((a, b) => a.x - b.x);
      if (points.length < 2) return null;
      const at = points.findIndex((point) => point.mine), first = Math.max(0, Math.min(at - 15, points.length - 30)), near = points.slice(first, first + 30);
      const base = zeroShot(chosen), values = [...near.map((p) => p.x), ...(base === null ? [] : [base])];
      const plot = Plot.plot({
        width: across(), height: 60 + 20 * near.length, marginLeft: Math.min(310, across() / 2), marginBottom: 40, style,
        x: { label: `${chosen.metric.label}${unit()}`, type: logarithmic(values) ? "log" : "linear", grid: true, insetLeft: 12, ticks: Math.max(3, across() / 130), tickFormat: (v) => Board.number(v) }, y: { label: null, domain: near.map((p) => p.y) },
        marks: [
          base === null ? null : Plot.ruleX([base], { stroke: "currentColor", strokeDasharray: "4 3" }),
          Plot.ruleY(near.filter((p) => p.deviation), { y: "y", x1: (p) => Math.max(p.x - p.deviation, p.x / 10), x2: (p) => p.x + p.deviation, stroke: (p) => (p.mine ? COLOURS[1] : COLOURS[0]), strokeWidth: 2 }),
          Plot.dot(near, { x: "x", y: "y", fill: (p) => (p.mine ? COLOURS[1] : "none"), stroke: (p) => (p.mine ? COLOURS[1] : COLOURS[0]), strokeWidth: 2, r: (p) => (p.mine ? 6 : 4), tip: true, title: (p) => `${p.name}\n${Board.number(p.x)}${p.deviation ? ` ± ${Board.number(p.deviation)}` : ""} ${chosen.unit}` }),
        ],
      });
      const words = `${chosen.label}: the row of this record is filled, place ${at + 1} of ${points.length} of the same protocol and kind of evidence; seeds are averaged, bars are one standard deviation.${base === null ? "" : " The dashed line is the base before fine-tuning."}`;
      return figure("Beside others", words, plot, { head: ["Base, method", `${chosen.metric.label}${unit()}`, "Standard deviation", "Seeds"], rows: points.map((p) => [p.name + (p.mine ? " (this one)" : ""), p.x, p.deviation ?? "", p.n]) });
    }

    function byTestSet() {
      const columns = tests();
      if (columns.length < 2) return null;
      const whose = [["other methods", "times"], ["base, zero-shot", "square"], ["this record", "circle"]];
      const own = new Map(columns.map((column) => [column, Board.ownValue(record, column)]));
      const points = columns.flatMap((column) => [
        ...rows.filter((row) => row !== mine && column.value(row) !== null).map((row) => ({ x: column.metric.test, y: column.value(row), kind: whose[0][0], name: name(row) })),
        ...(zeroShot(column) === null ? [] : [{ x: column.metric.test, y: zeroShot(column), kind: whose[1][0], name: "the base, zero-shot" }]),
        { x: column.metric.test, y: own.get(column), kind: whose[2][0], name: "this record" },
      ]);
      const kinds = whose.filter(([kind]) => points.some((p) => p.kind === kind)), colour = (kind) => ({ "this record": COLOURS[1], "base, zero-shot": "currentColor" })[kind] ?? COLOURS[0];
      const plot = Plot.plot({
        width: across(), height: 320, marginLeft: 60, marginBottom: columns.length > 5 ? 90 : 40, style, symbol: { domain: whose.map(([kind]) => kind), range: whose.map(([, sign]) => sign) },
        x: { label: null, domain: columns.map((column) => column.metric.test), tickRotate: columns.length > 5 ? -35 : 0 }, y: { label: `${chosen.metric.label}${unit()}`, type: logarithmic(points.map((p) => p.y)) ? "log" : "linear", grid: true, zero: true, tickFormat: (v) => Board.number(v) },
        marks: [Plot.dot(points, { x: "x", y: "y", symbol: "kind", stroke: (p) => colour(p.kind), fill: (p) => (p.kind === "this record" ? COLOURS[1] : "none"), r: (p) => (p.kind === "other methods" ? 3.5 : 5.5), strokeWidth: 2, tip: true, title: (p) => `${p.name}\n${p.x}: ${Board.number(p.y)} ${chosen.unit}` })],
      });
      const signs = { times: "✕", square: "□", circle: "●" };
      const legend = el("p", { class: "legend" }, ...kinds.map(([kind, sign]) => { const mark = el("span", { "aria-hidden": "true" }, `${signs[sign]} `); mark.style.color = colour(kind); return el("span", {}, mark, kind); }));
      return figure("By test set", `${chosen.metric.label} of this record, of the base before fine-tuning where it was measured, and of other methods of the same protocol and kind of evidence.`, plot,
        { head: ["Test set", `This record${unit()}`, "Base, zero-shot", "Best of the others"], rows: columns.map((column) => [column.metric.test, own.get(column), zeroShot(column) ?? "", d3.min(rows.filter((row) => row !== mine), (row) => column.value(row) ?? undefined) ?? ""]) }, legend);
    }

    drawn = () => {
      const select = el("select", { onchange: (event) => { chosen = errors.find((column) => column.key === event.target.value); drawn(); } }, ...errors.map((column) => el("option", { value: column.key, selected: column === chosen }, [column.metric.test, column.metric.label].filter(Boolean).join(" · "))));
      const figures = [beside(), byTestSet()].filter(Boolean);
      place.hidden = !figures.length;
      place.replaceChildren(el("h2", {}, "Plots"), el("div", { class: "tools" }, el("label", {}, "Error", select)), ...figures);
      for (const title of place.querySelectorAll("figure h2")) title.replaceWith(el("h3", {}, title.textContent));
    };
    drawn();
  }
  const start = () => loadScripts(...files).then(draw, (error) => place.replaceChildren(el("p", { role: "alert" }, error.message)));
  const watch = new IntersectionObserver((seen) => {
    if (!seen.some((one) => one.isIntersecting)) return;
    watch.disconnect();
    start();
  }, { rootMargin: "600px" });
  watch.observe(place);
})();
