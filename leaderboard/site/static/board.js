// The data of data.js as rows and columns; knows nothing of the page.
"use strict";
const Board = (() => {
  const data = window.BOARD;
  const count = data.ids.length;
  const provenances = data.provenances.map((p) => p.name);
  const text = (key, row) => data.texts[key].words[data.texts[key].codes[row]];
  const words = (key) => [...data.texts[key].words].sort((a, b) => a.localeCompare(b));

  // metric index -> [value, deviation] of a record, unpacked when a benchmark asks for it
  const unpacked = new Map();
  function valuesOf(record) {
    if (!unpacked.has(record)) {
      const found = new Map(), triples = data.values[record];
      for (let i = 0; i < triples.length; i += 3) found.set(triples[i], [triples[i + 1], triples[i + 2]]);
      unpacked.set(record, found);
    }
    return unpacked.get(record);
  }
  function oneValue(record, metric) {
    const triples = data.values[record];
    for (let i = 0; i < triples.length; i += 3) if (triples[i] === metric) return triples[i + 1];
    return null;
  }
  const metricLabel = (metric) => `${metric.test ? `${metric.test} · ` : ""}${metric.label}`;

  function number(value) {
    if (value === null || value === undefined) return "";
    if (Math.abs(value) >= 1000 || Number.isInteger(value)) return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
    return String(Number(value.toPrecision(4)));
  }

  const textColumn = (key, label) => ({ key, label, kind: "text", value: (row) => row.texts[key] ?? "" });
  const numberColumn = (key, label, unit, better) => ({ key, label, unit, better, kind: "number", value: (row) => row.numbers[key] ?? null });

  const TEXTS = { base: "Base", method: "Method", data: "Data", protocol: "Protocol", benchmark: "Benchmark", family: "Family", theory: "Level of theory", source: "Source", hardware: "Hardware", licence: "Licence" };
  const NUMBERS = {
    trainable: ["Trained parameters", "", "lower"], parameters: ["Parameters of the base", ""], bytes: ["Adapter file", "bytes", "lower"], seed: ["Seed", ""],
    cpu_hours: ["CPU time", "h", "lower"], gpu_hours: ["GPU time", "h", "lower"], memory_mib: ["Peak memory", "MiB", "lower"],
    forgetting: ["Forgetting, force error after / before", "", "lower"], runs: ["Runs averaged in the paper", ""],
  };

  // One row a record: the overall table.
  function recordRows() {
    const rows = [];
    for (let i = 0; i < count; i++) {
      const texts = {}, numbers = {};
      for (const key of Object.keys(data.texts)) texts[key] = text(key, i);
      for (const key of Object.keys(data.numbers)) numbers[key] = data.numbers[key][i];
      const head = data.heads[i] < 0 ? null : data.metrics[data.heads[i]];
      texts.what = head ? `${metricLabel(head)}, ${head.unit}` : "";
      numbers.head = head ? oneValue(i, data.heads[i]) : null;
      rows.push({ key: data.ids[i], records: [i], provenance: texts.provenance, texts, numbers });
    }
    return rows;
  }
  function recordColumns() {
    return [
      textColumn("base", TEXTS.base), textColumn("method", TEXTS.method), textColumn("data", TEXTS.data), numberColumn("head", "First error", "", "lower"), textColumn("what", "of what"),
      numberColumn("trainable", ...NUMBERS.trainable), textColumn("protocol", TEXTS.protocol), textColumn("source", TEXTS.source),
      ...["seed", "cpu_hours", "gpu_hours", "memory_mib", "bytes", "parameters", "forgetting", "runs"].map((key) => numberColumn(key, ...NUMBERS[key])),
      ...["family", "benchmark", "theory", "hardware", "licence"].map((key) => textColumn(key, TEXTS[key])),
    ];
  }
  const shownOfRecords = ["base", "method", "data", "head", "what", "trainable", "protocol", "source"];

  // One row a contestant of a benchmark: seeds are averaged, data sets are columns.
  function benchmarkRows(benchmark) {
    const groups = new Map();
    for (let i = 0; i < count; i++) {
      if (text("benchmark", i) !== benchmark) continue;
      const name = text("data", i);
      const protocol = text("protocol", i).replace(name, "").replace(/^[ /]/, "");
      const key = JSON.stringify([text("provenance", i), text("base", i), text("method", i), protocol]);
      if (!groups.has(key)) groups.set(key, { key, records: [], provenance: text("provenance", i), protocol });
      groups.get(key).records.push(i);
    }
    const defs = new Map();
    const rows = [...groups.values()].map((group) => {
      const first = group.records[0], cells = new Map();
      for (const i of group.records) {
        for (const [metric, [value, deviation]] of valuesOf(i)) {
          const key = `${text("data", i)}|${metric}`;
          if (!defs.has(key)) defs.set(key, { data: text("data", i), metric, count: 0 });
          if (!cells.has(key)) cells.set(key, { values: [], deviation: null, record: i });
          const cell = cells.get(key);
          cell.values.push(value);
          if (deviation !== null) cell.deviation = deviation;
        }
      }
      for (const [key, cell] of cells) {
        defs.get(key).count += 1;
        cell.mean = cell.values.reduce((a, b) => a + b, 0) / cell.values.length;
        if (cell.values.length > 1) cell.deviation = Math.sqrt(cell.values.reduce((a, b) => a + (b - cell.mean) ** 2, 0) / (cell.values.length - 1));
      }
      const texts = {};
      for (const key of Object.keys(data.texts)) texts[key] = text(key, first);
      texts.protocol = group.protocol;
      const numbers = { seeds: Math.max(...[...cells.values()].map((c) => c.values.length), 0) };
      for (const key of Object.keys(data.numbers)) numbers[key] = data.numbers[key][first];
      if (group.records.length > 1) for (const key of ["cpu_hours", "gpu_hours", "memory_mib"]) {
        const all = group.records.map((i) => data.numbers[key][i]).filter((v) => v !== null);
        numbers[key] = all.length ? all.reduce((a, b) => a + b, 0) / all.length : null;
      }
      return { ...group, texts, numbers, cells };
    });
    return { rows, defs };
  }
  function benchmarkColumns({ rows, defs }, benchmark) {
    const only = new Set([...defs.values()].map((d) => d.data)).size === 1;
    const order = (d) => { const n = data.metrics[d.metric].name; return n.startsWith("force_") ? 0 : n.startsWith("energy_") ? 1 : 2; };
    const columns = [...defs].sort(([, a], [, b]) => order(a) - order(b) || a.data.localeCompare(b.data) || b.count - a.count).map(([key, def]) => {
      const metric = data.metrics[def.metric];
      const set = only ? "" : def.data.replace(`${benchmark}/`, "");
      const test = metric.test === "test" && !only ? "" : metric.test;
      return {
        key, label: [set, test, metric.label].filter(Boolean).join(" · "), unit: metric.unit, better: metric.better, kind: "number", metric, data: def.data,
        value: (row) => row.cells.get(key)?.mean ?? null, deviation: (row) => row.cells.get(key)?.deviation ?? null, record: (row) => row.cells.get(key)?.record,
        shown: def.count,
      };
    });
    return [
      textColumn("base", TEXTS.base), textColumn("method", TEXTS.method), textColumn("protocol", TEXTS.protocol), numberColumn("trainable", ...NUMBERS.trainable), ...columns,
      numberColumn("seeds", "Seeds", ""), textColumn("source", TEXTS.source),
      ...["cpu_hours", "gpu_hours", "memory_mib", "bytes", "parameters", "forgetting", "runs"].map((key) => numberColumn(key, ...NUMBERS[key])),
      textColumn("theory", TEXTS.theory), textColumn("hardware", TEXTS.hardware),
    ];
  }
  // Of MAE and RMSE, energies per atom and per structure, the ones most rows have: at most 24 columns to begin with.
  function shownOfBenchmark(columns) {
    const errors = columns.filter((c) => c.metric);
    const most = Math.max(0, ...errors.map((c) => c.shown));
    const wanted = errors.filter((c) => c.shown >= most / 4 && (c.metric.better === "lower")).sort((a, b) => b.shown - a.shown).slice(0, 24);
    const chosen = wanted.length ? wanted : errors.slice(0, 24);
    return ["base", "method", "protocol", "trainable", ...columns.filter((c) => chosen.includes(c)).map((c) => c.key), "seeds"];
  }

  return { data, count, provenances, words, text, number, recordRows, recordColumns, shownOfRecords, benchmarkRows, benchmarkColumns, shownOfBenchmark, metricLabel };
})();
