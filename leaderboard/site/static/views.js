// The views and their addresses: everything a reader chose stands behind the # and can be sent to someone else.
"use strict";
(() => {
  const view = document.getElementById("view"), title = document.getElementById("title"), lead = document.getElementById("lead");
  const status = document.getElementById("status");
  const say = (text) => { status.textContent = text; };
  const RANKING = "Ranking";
  const benchmarks = Board.words("benchmark");
  let state = parse();

  function parse() {
    const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    const [kind = "", name = ""] = path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
    return { kind: kind || "all", name, query: new URLSearchParams(query) };
  }
  const address = (kind, name = "", query = "") => `#/${kind === "all" ? "" : kind}${name ? `/${encodeURIComponent(name)}` : ""}${String(query) ? `?${query}` : ""}`;
  // Replaces the address without a new entry in the history for each keystroke, and without drawing again.
  function remember(changes) {
    for (const [key, value] of Object.entries(changes)) {
      if (value === null || value === "") state.query.delete(key);
      else state.query.set(key, value);
    }
    history.replaceState(null, "", address(state.kind, state.name, state.query));
  }

  function navigation() {
    const here = (kind, name) => (state.kind === kind && state.name === name) || (kind === "benchmark" && ["plots", "compare"].includes(state.kind) && name !== "" && state.name === name);
    const link = (kind, name, label) => el("a", { href: address(kind, name), "aria-current": here(kind, name) ? "page" : null }, label);
    document.getElementById("views").replaceChildren(link("all", "", "All records"), link("ranking", "", "Ranking"), link("plots", "", "Overview"),
      el("span", { class: "of", "aria-hidden": "true" }, "Benchmarks:"), ...benchmarks.map((name) => link("benchmark", name, name)));
  }

  function select(label, key, words, redraw) {
    const chosen = state.query.get(key) ?? "";
    const box = el("select", { onchange: (event) => { remember({ [key]: event.target.value }); redraw(); } }, el("option", { value: "" }, "all"), ...words.map((word) => el("option", { value: word, selected: word === chosen }, word.length > 60 ? `${word.slice(0, 58)}…` : word)));
    return el("label", {}, label, box);
  }

  const SEARCHED = ["provenance", "verified", "base", "method", "benchmark", "data", "protocol", "family", "theory", "source", "hardware", "licence"];

  function tableView(caption, rows, columns, shownFirst, filters, firstSort = "") {
    // the address says what differs from the columns shown at first, so that it still holds when the board has grown
    const listed = (key) => (state.query.get(key) ?? "").split(",").filter(Boolean).map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
    const initial = new Set(shownFirst), wanted = new Set([...shownFirst, ...listed("show")]);
    for (const key of listed("hide")) wanted.delete(key);
    const difference = (from, to) => [...from].filter((key) => !to.has(key)).map(encodeURIComponent).join(",");
    const off = new Set(state.query.get("without")?.split(",").filter(Boolean) ?? []);
    const selected = new Set();
    const haystacks = new Map();
    const haystack = (row) => {
      if (!haystacks.has(row)) haystacks.set(row, SEARCHED.map((key) => row.text(key)).join("\n").toLowerCase());
      return haystacks.get(row);
    };
    function filtered() {
      const terms = (state.query.get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
      const exact = filters.map(([, key]) => [key, state.query.get(key)]).filter(([, value]) => value);
      return rows.filter((row) => !off.has(row.provenance) && exact.every(([key, value]) => row.text(key) === value) && (!terms.length || terms.every((term) => haystack(row).includes(term))));
    }
    function redraw() {
      const found = filtered();
      table.arrange(found);
      say(`${found.length} of ${rows.length} rows`);
    }
    // several seeds: their records in the overall table; a place in a ranking: the row in the table of its benchmark
    const linkOf = (row) => {
      const known = benchmarks.includes(row.text("benchmark")), whose = { base: row.text("base"), method: row.text("method"), without: Board.provenances.filter((name) => name !== row.provenance).join(",") };
      return row.records.length || !known ? address("all", "", new URLSearchParams({ ...whose, ...(known ? { benchmark: row.text("benchmark") } : {}) })) : address("benchmark", row.text("benchmark"), new URLSearchParams({ ...whose, protocol: row.protocol }));
    };
    const slot = el("div");
    let table;
    function build() {
      const shown = columns.filter((column) => wanted.has(column.key));
      const place = columns.find((column) => column.key === state.query.get("sort"));
      table = Table.make({
        caption, columns: shown, rows: filtered(), selected,
        sort: { key: place?.key ?? (wanted.has(firstSort) ? firstSort : ""), descending: state.query.get("down") === "1" },
        onSort: ({ key, descending }) => {
          remember({ sort: key, down: descending ? "1" : null });
          say(`Sorted by ${columns.find((column) => column.key === key).label}, ${descending ? "descending" : "ascending"}`);
        },
        onSelect: caption === RANKING ? null : (row, on) => {
          if (on) selected.add(row.key); else selected.delete(row.key);
          compare.disabled = selected.size !== 2;
        },
        link: (row) => (row.records.length === 1 ? Table.recordAddress(row.records[0]) : linkOf(row)),
      });
      slot.replaceChildren(table.box);
      table.arrange(filtered());
    }
    const compare = el("button", { type: "button", disabled: true, onclick: () => { const [a, b] = [...selected]; location.hash = address("compare", state.kind === "benchmark" ? state.name : "", new URLSearchParams({ a, b })); } }, "Compare two");
    let timer;
    const search = el("input", { type: "search", value: state.query.get("q") ?? "", oninput: (event) => { clearTimeout(timer); timer = setTimeout(() => { remember({ q: event.target.value }); redraw(); }, 80); } });
    const chooser = el("details", { class: "columns" }, el("summary", {}, "Columns"), el("div", {}, ...columns.map((column, place) => {
      const box = el("input", { type: "checkbox", onchange: (event) => {
        if (event.target.checked) wanted.add(column.key); else wanted.delete(column.key);
        remember({ show: difference(wanted, initial), hide: difference(initial, wanted) });
        build();
      } });
      box.checked = wanted.has(column.key);
      return el("label", {}, box, column.unit ? `${column.label} / ${column.unit}` : column.label);
    })));
    const evidence = el("fieldset", {}, el("legend", {}, "Evidence"), el("div", {}, ...Board.provenances.filter((name) => rows.some((row) => row.provenance === name)).map((name) => {
      const box = el("input", { type: "checkbox", onchange: (event) => { if (event.target.checked) off.delete(name); else off.add(name); remember({ without: [...off].join(",") }); redraw(); } });
      box.checked = !off.has(name);
      return el("label", {}, box, el("span", { class: `badge ${name}` }, name));
    })));
    const files = Export.kinds.map((kind) => el("button", { type: "button", onclick: () => Export.download(kind, caption, table.columns, table.lines()) }, kind));
    const tools = el("div", { class: "tools" }, el("label", {}, "Search", search), ...filters.map(([label, key]) => select(label, key, [...new Set(rows.map((row) => row.text(key)))].sort(), redraw)), evidence, chooser, caption === RANKING ? null : compare, el("div", { role: "group", "aria-label": "Download this table" }, ...files));
    build();
    return [tools, slot, badges()];
  }

  function badges() {
    const { provenances, verifications } = Board.data;
    return el("details", { class: "meaning" }, el("summary", {}, "What the badges mean"), el("dl", {},
      ...provenances.flatMap(({ name, meaning }) => [el("dt", {}, Table.badge("badge", name, name)), el("dd", {}, `${meaning}.`)]),
      ...verifications.flatMap(({ name, short, style, meaning }) => [el("dt", {}, Table.badge("check", style, short)), el("dd", {}, `${name}: ${meaning}.`)])), el("p", {}, "A row of several records shows the weakest verification, and of how many of them it is."));
  }

  const VIEWS = {
    all() {
      title.textContent = "All records";
      lead.textContent = "One row a record. Numbers of different data or units are only to be found here, not to be compared; the benchmarks have tables of their own.";
      view.replaceChildren(...tableView("All records", Board.recordRows(), Board.recordColumns(), Board.shownOfRecords, [["Benchmark", "benchmark"], ["Base", "base"], ["Method", "method"], ["Verification", "verified"]]));
    },
    benchmark() {
      if (!benchmarks.includes(state.name)) return missing(`No benchmark ${state.name}.`);
      title.textContent = state.name;
      lead.replaceChildren("One row a base, method and protocol; seeds are averaged, ± is their standard deviation. Bold is the best of a column within one protocol and one kind of evidence. ", el("a", { href: address("plots", state.name) }, `Plots of ${state.name}`));
      const made = Board.benchmarkRows(state.name), columns = Board.benchmarkColumns(made, state.name);
      view.replaceChildren(...tableView(state.name, made.rows, columns, Board.shownOfBenchmark(columns), [["Base", "base"], ["Method", "method"], ["Protocol", "protocol"], ["Verification", "verified"]], Board.firstSort(columns)));
    },
    ranking() {
      title.textContent = RANKING;
      lead.textContent = "Within one benchmark, protocol and kind of evidence. Mean rank: ties share places, a missing task counts as a shared last place. Gain: geometric mean over tasks of the error of full fine-tuning over that of the method, with a 95 % bootstrap interval over seeds where there are seeds.";
      const rows = Board.rankedRows(), columns = Board.rankedColumns();
      // one benchmark at first: that of the strongest evidence, all of them together where there is such a ranking
      if (!state.query.has("benchmark") && rows.length) state.query.set("benchmark", (rows.find((row) => !benchmarks.includes(row.text("benchmark"))) ?? rows[0]).text("benchmark"));
      view.replaceChildren(...tableView(RANKING, rows, columns, Board.shownOfRanking, [["Benchmark", "benchmark"], ["Protocol", "protocol"], ["Base", "base"]]));
    },
    compare() {
      const ofBenchmark = benchmarks.includes(state.name);
      const made = ofBenchmark ? Board.benchmarkRows(state.name) : null;
      const rows = ofBenchmark ? made.rows : Board.recordRows(), columns = ofBenchmark ? Board.benchmarkColumns(made, state.name) : Board.recordColumns();
      const pair = ["a", "b"].map((key) => rows.find((row) => row.key === state.query.get(key)));
      if (!pair[0] || !pair[1]) return missing("One of the two rows is no longer on the board.");
      title.textContent = "Comparison";
      const mixed = pair[0].provenance !== pair[1].provenance || pair[0].text("protocol") !== pair[1].text("protocol");
      lead.textContent = mixed ? "Mind the difference: the two rows are of another kind of evidence or of another protocol." : "Two rows of one protocol and one kind of evidence. Differences smaller than the standard deviations of both together are within the spread.";
      const heads = pair.map((row) => el("th", { scope: "col" }, el("span", { class: `badge ${row.provenance}` }, row.provenance), ` ${row.text("base")}, ${row.text("method")}`));
      const lines = columns.filter((column) => pair.some((row) => Table.shownCell(column, row) !== "")).map((column) => {
        const [a, b] = pair.map((row) => column.value(row));
        let difference = "", kind = null;
        if (column.kind === "number" && a !== null && b !== null && a > 0 && column.better) {
          const percent = 100 * (b / a - 1), spread = Math.hypot(...pair.map((row) => column.deviation?.(row) ?? 0));
          if (Math.abs(b - a) > spread) kind = (percent < 0) === (column.better === "lower") ? "better" : "worse";
          const size = Math.abs(percent), shown = Board.number(size >= 100 ? Math.round(size) : Number(size.toPrecision(3)));
          difference = percent === 0 ? "equal" : `${percent > 0 ? "+" : "−"}${shown} %, ${kind ?? "within the spread"}`;
        } else if (column.kind === "text" && a !== b) difference = "differs";
        const cells = pair.map((row) => el("td", { class: column.kind === "number" ? "n" : null }, Table.shownCell(column, row)));
        return el("tr", {}, el("th", { scope: "row" }, column.unit ? `${column.label} / ${column.unit}` : column.label), ...cells, el("td", { class: kind }, difference));
      });
      view.replaceChildren(el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": "Comparison" }, el("table", { class: "plain" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Column"), ...heads, el("th", { scope: "col" }, "Second against first"))), el("tbody", {}, ...lines))));
    },
    plots() {
      if (state.name && !benchmarks.includes(state.name)) return missing(`No benchmark ${state.name}.`);
      const [where, script] = state.name ? [`Plots of ${state.name}`, "static/plots.js"] : ["Overview", "static/overview.js"];
      title.textContent = where;
      lead.replaceChildren(state.name ? el("a", { href: address("benchmark", state.name) }, `Table of ${state.name}`) : el("a", { href: address("ranking") }, "The same as a table"));
      view.replaceChildren(el("p", {}, "Loading the plotting library…"));
      const asked = location.hash;
      loadScripts(...PLOTTING, script).then(
        () => { if (location.hash === asked) (state.name ? Plots : Overview).show(view, state, remember); },
        (error) => view.replaceChildren(el("p", { role: "alert" }, error.message)),
      );
    },
  };
  function missing(text) {
    title.textContent = "Not here";
    lead.textContent = text;
    view.replaceChildren(el("p", {}, el("a", { href: "#/" }, "All records")));
  }

  function show(focus) {
    state = parse();
    navigation();
    lead.replaceChildren();
    const started = performance.now();
    (VIEWS[state.kind] ?? (() => missing("No such view.")))();
    document.title = `${title.textContent} · equizoo leaderboard`;
    document.documentElement.dataset.drawn = (performance.now() - started).toFixed(1);
    if (focus) document.getElementById("main").focus();
  }
  addEventListener("hashchange", () => show(true));
  document.addEventListener("themechange", () => { if (state.kind === "plots") show(false); });
  show(false);
})();
