// The data of data.js as rows and columns; knows nothing of the page. A row has text(key), number(key), and the numbers of its records.
"use strict";
const Board = (() => {
  const data = window.BOARD;
  const count = data.ids.length;
  const provenances = data.provenances.map((p) => p.name);
  const strength = new Map(data.verifications.map((v, place) => [v.name, place]));
  const verification = (name) => data.verifications[strength.get(name)] ?? data.verifications.at(-1);
  const text = (key, record) => data.texts[key].words[data.texts[key].codes[record]];
  const words = (key) => [...data.texts[key].words].sort((a, b) => a.localeCompare(b));

  // The numbers of all records are most of the bytes, and the overall table needs one a record: they are read when a benchmark asks.
  let numbers = null;
  const valuesOf = (record) => (numbers ??= JSON.parse(window.BOARD_VALUES))[record];
  // of one record, where a row averages several
  function ownValue(record, column) {
    const triples = valuesOf(record);
    for (let i = 0; i < triples.length; i += 3) {
      const metric = data.metrics[triples[i]];
      if (metric.test === column.metric.test && metric.name === column.metric.name && metric.unit === column.metric.unit) return triples[i + 1];
    }
    return null;
  }
  const metricLabel = (metric) => `${metric.test ? `${metric.test} · ` : ""}${metric.label}`;

  function number(value) {
    if (value === null || value === undefined) return "";
    const whole = Math.abs(value) >= 1000 || Number.isInteger(value);
    return (whole ? Math.round(value).toLocaleString("en").replaceAll(",", "\u202f") : String(Number(value.toPrecision(4)))).replace(/^-/, "\u2212");
  }

  const textColumn = (key, label) => ({ key, label, kind: "text", value: (row) => row.text(key) });
  const numberColumn = (key, label, unit, better) => ({ key, label, unit, better, kind: "number", value: (row) => row.number(key) });

  const TEXTS = { base: "Base", method: "Method", data: "Data", protocol: "Protocol", benchmark: "Benchmark", family: "Family", e0s: "E0s", theory: "Level of theory", source: "Source", hardware: "Hardware", licence: "Licence" };
  const NUMBERS = {
    trainable: ["Trained parameters", "", "lower"], parameters: ["Parameters of the base", ""], bytes: ["Adapter file", "bytes", "lower"], seed: ["Seed", ""],
    cpu_hours: ["CPU time", "h", "lower"], gpu_hours: ["GPU time", "h", "lower"], memory_mib: ["Peak memory", "MiB", "lower"],
    forgetting: [`Forgetting, force error after / before on ${data.forgetting_of}`, "", "lower"], runs: ["Runs averaged in the paper", ""],
  };
  const COSTS = ["cpu_hours", "gpu_hours", "memory_mib", "bytes", "parameters", "forgetting", "runs"];
  // Badges: where a number comes from, and what the board recomputed of it.
  const provenanceColumn = { ...textColumn("provenance", "Evidence"), badge: (row) => ["badge", row.provenance, row.provenance, data.provenances.find((p) => p.name === row.provenance).meaning] };
  const verifiedColumn = { ...textColumn("verified", "Verification"), badge: (row) => {
    const { short, style, meaning, name } = verification(row.text("verified")), share = row.shareOf?.("verified", name) ?? "";
    return ["check", style, `${short}${share}`, row.note?.("verified") ?? `${name}: ${meaning}`];
  } };

  // One row a record: the overall table.
  class RecordRow {
    constructor(record) {
      this.record = record;
      this.key = data.ids[record];
      this.provenance = this.section = text("provenance", record);
    }
    get records() { return [this.record]; }
    text(key) {
      if (key !== "what") return text(key, this.record);
      const head = data.metrics[data.heads[this.record]];
      return head ? `${metricLabel(head)}, ${head.unit}` : "";
    }
    number(key) { return (key === "head" ? data.head_values : data.numbers[key])[this.record]; }
  }
  const recordRows = () => data.ids.map((_, record) => new RecordRow(record));
  const recordColumns = () => [
    textColumn("base", TEXTS.base), textColumn("method", TEXTS.method), textColumn("data", TEXTS.data), provenanceColumn, verifiedColumn, numberColumn("head", "Headline error", "", "lower"), textColumn("what", "which error"),
    numberColumn("trainable", ...NUMBERS.trainable), textColumn("protocol", TEXTS.protocol), textColumn("source", TEXTS.source),
    ...["seed", ...COSTS].map((key) => numberColumn(key, ...NUMBERS[key])), ...["family", "benchmark", "e0s", "theory", "hardware", "licence"].map((key) => textColumn(key, TEXTS[key])),
  ];
  const shownOfRecords = ["base", "method", "data", "head", "what", "provenance", "verified", "trainable", "protocol", "source"];

  // One row a contestant of a benchmark: seeds are averaged, data sets are columns.
  class ContestantRow {
    constructor(key, record, protocol) {
      this.key = key;
      this.records = [record];
      this.protocol = protocol;
      this.provenance = text("provenance", record);
      this.section = `${this.provenance} ${protocol}`;
      this.sectionWords = protocol;
      this.cells = new Map(); // of column: mean, deviation, one of the records
    }
    text(key) {
      if (key === "protocol") return this.protocol;
      if (key !== "verified") return text(key, this.records[0]);
      return data.verifications[Math.max(...this.records.map((record) => strength.get(text("verified", record))))].name; // the weakest
    }
    // " 1/3" where the weakest verification is that of one record of three
    shareOf(key, word) {
      const many = this.records.filter((record) => text(key, record) === word).length;
      return many === this.records.length ? "" : ` ${many}/${this.records.length}`;
    }
    note(key) {
      const counts = new Map();
      for (const record of this.records) counts.set(text(key, record), (counts.get(text(key, record)) ?? 0) + 1);
      return this.records.length === 1 ? undefined : [...counts].map(([word, many]) => `${many} of ${this.records.length} records: ${word}`).join("; ");
    }
    number(key) {
      if (key === "seeds") return this.seeds;
      const all = this.records.map((record) => data.numbers[key][record]).filter((value) => value !== null);
      if (!all.length || key === "seed") return all[0] ?? null;
      return all.reduce((a, b) => a + b, 0) / all.length;
    }
  }
  const shortProtocol = (record) => text("protocol", record).replace(text("data", record), "").replace(/^[ /]/, "");

  function benchmarkRows(benchmark) {
    const rows = new Map(), defs = new Map();
    for (let record = 0; record < count; record++) {
      if (text("benchmark", record) !== benchmark) continue;
      const protocol = shortProtocol(record);
      const key = JSON.stringify([text("provenance", record), text("base", record), text("method", record), protocol]);
      const known = rows.get(key);
      if (known) known.records.push(record);
      else rows.set(key, new ContestantRow(key, record, protocol));
    }
    for (const row of rows.values()) {
      for (const record of row.records) {
        const triples = valuesOf(record), set = text("data", record);
        for (let i = 0; i < triples.length; i += 3) {
          const metric = data.metrics[triples[i]], key = [set, metric.test, metric.name, metric.unit].join("|");
          if (!defs.has(key)) defs.set(key, { data: set, metric, count: 0 });
          if (!row.cells.has(key)) row.cells.set(key, { values: [], deviation: null, record });
          const cell = row.cells.get(key);
          cell.values.push(triples[i + 1]);
          cell.deviation = triples[i + 2] ?? cell.deviation;
        }
      }
      for (const [key, cell] of row.cells) {
        const n = cell.values.length;
        defs.get(key).count += 1;
        cell.mean = cell.values.reduce((a, b) => a + b, 0) / n;
        if (n > 1) cell.deviation = Number(Math.sqrt(cell.values.reduce((a, b) => a + (b - cell.mean) ** 2, 0) / (n - 1)).toPrecision(2));
      }
      row.seeds = Math.max(0, ...[...row.cells.values()].map((cell) => cell.values.length));
    }
    return { rows: [...rows.values()], defs };
  }
  function benchmarkColumns({ defs }, benchmark) {
    const only = new Set([...defs.values()].map((d) => d.data)).size === 1;
    const order = (d) => { const n = d.metric.name; return n.startsWith("force_") ? 0 : n.startsWith("energy_") ? 1 : 2; };
    const columns = [...defs].sort(([, a], [, b]) => order(a) - order(b) || a.data.localeCompare(b.data) || b.count - a.count).map(([key, def]) => {
      const { metric } = def;
      const set = only ? "" : def.data.replace(`${benchmark}/`, "");
      const test = metric.test === "test" && !only ? "" : metric.test;
      return {
        key, label: [set, test, metric.label].filter(Boolean).join(" · "), unit: metric.unit, better: metric.better, kind: "number", metric, data: def.data,
        value: (row) => row.cells.get(key)?.mean ?? null, deviation: (row) => row.cells.get(key)?.deviation ?? null, record: (row) => row.cells.get(key)?.record,
        shown: def.count,
      };
    });
    return [
      textColumn("base", TEXTS.base), textColumn("method", TEXTS.method), textColumn("protocol", TEXTS.protocol), provenanceColumn, verifiedColumn,
      numberColumn("trainable", ...NUMBERS.trainable), ...columns, numberColumn("seeds", "Seeds", ""), textColumn("source", TEXTS.source),
      ...COSTS.map((key) => numberColumn(key, ...NUMBERS[key])), textColumn("e0s", TEXTS.e0s), textColumn("theory", TEXTS.theory), textColumn("hardware", TEXTS.hardware),
    ];
  }
  // Of MAE and RMSE, energies per atom and per structure, the ones most rows have: at most 24 columns to begin with.
  function shownOfBenchmark(columns) {
    const errors = columns.filter((c) => c.metric);
    const most = Math.max(0, ...errors.map((c) => c.shown));
    const wanted = errors.filter((c) => c.shown >= most / 4 && (c.metric.better === "lower")).sort((a, b) => b.shown - a.shown).slice(0, 24);
    const chosen = wanted.length ? wanted : errors.slice(0, 24);
    return ["base", "method", "provenance", "verified", "trainable", ...columns.filter((c) => chosen.includes(c)).map((c) => c.key), "seeds"];
  }

  // By which a table is sorted at first: the error that most rows have, forces before energies.
  const firstSort = (columns) => columns.filter((c) => c.metric && c.better === "lower").reduce((best, c) => (best === null || c.shown > best.shown ? c : best), null)?.key ?? "";

  // One row a contestant of a ranking.
  class RankedRow {
    constructor(entry, place) {
      this.entry = entry;
      this.key = String(place);
      this.records = [];
      this.provenance = entry.provenance;
      this.protocol = entry.protocol;
      this.sectionWords = `${entry.benchmark}, ${entry.protocol}`;
      this.section = `${entry.provenance} ${this.sectionWords}`;
    }
    text(key) { return this.entry[key] ?? ""; }
    number(key) { return this.entry[key] ?? this.entry.improvement?.[key] ?? null; }
  }
  const rankedRows = () => data.ranking.map((entry, place) => new RankedRow(entry, place));
  const rankedColumns = () => [
    ...["base", "method", "benchmark", "protocol"].map((key) => textColumn(key, TEXTS[key])), numberColumn("mean_rank", "Mean rank", "", "lower"),
    { ...numberColumn("percent", "Gain over full", "%", "higher"), sign: true }, { ...numberColumn("low", "95 % from", "%", "higher"), sign: true }, { ...numberColumn("high", "to", "%", "higher"), sign: true },
    numberColumn("tasks", "Tasks", "", "higher"), numberColumn("tasks_of_all", "of", ""), numberColumn("fewest_seeds", "Seeds, fewest", ""), numberColumn("most_seeds", "most", ""), provenanceColumn,
  ];

  const shownOfRanking = ["base", "method", "mean_rank", "percent", "low", "high", "tasks", "tasks_of_all", "fewest_seeds", "most_seeds", "provenance"];

  return { data, count, ownValue, provenances, verification, words, text, number, recordRows, recordColumns, shownOfRecords, benchmarkRows, benchmarkColumns, shownOfBenchmark, firstSort, shownOfRanking, rankedRows, rankedColumns, shortProtocol };
})();
