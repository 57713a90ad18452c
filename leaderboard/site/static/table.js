// A table that draws only the rows in sight. Sections by kind of evidence, and by protocol where errors are compared, are kept whatever the
// order: what is no fair comparison never stands in one list.
"use strict";
const Table = (() => {
  const ROW = 34, MARGIN = 12;
  const collator = new Intl.Collator("en", { numeric: true });

  // Sections in order: kinds of evidence as the board has them, within each the protocol of the most rows first.
  function sections(rows) {
    const found = new Map();
    for (const row of rows) {
      const known = found.get(row.section);
      if (known) known.count += 1;
      else found.set(row.section, { key: row.section, provenance: row.provenance, words: row.sectionWords ?? "", count: 1 });
    }
    const place = new Map(Board.provenances.map((name, index) => [name, index]));
    return [...found.values()].sort((a, b) => place.get(a.provenance) - place.get(b.provenance) || b.count - a.count || collator.compare(a.words, b.words));
  }
  // Rows in order: sections first, then the column, rows without a value last in either direction. A section in which no row has an error
  // that is sorted by is in the order of the one of ``errors`` that most of its rows have.
  function ordered(rows, column, descending, inOrder = sections(rows), errors = []) {
    const sign = descending ? -1 : 1;
    const section = new Map(inOrder.map((one, place) => [one.key, place]));
    const by = column?.metric ? new Map(inOrder.map((one) => [one.key, errorOf(rows.filter((row) => row.section === one.key), column, errors)])) : null;
    const keyed = rows.map((row) => [section.get(row.section), (by?.get(row.section) ?? column)?.value(row) ?? null, row]);
    const compare = column && column.kind === "number" ? (a, b) => a - b : textOrder(keyed);
    keyed.sort((a, b) => {
      if (a[0] !== b[0]) return a[0] - b[0];
      const left = a[1] === null || a[1] === "", right = b[1] === null || b[1] === "";
      if (left || right) return left === right ? 0 : left ? 1 : -1;
      return sign * compare(a[1], b[1]);
    });
    return keyed.map((entry) => entry[2]);
  }
  function errorOf(rows, column, errors) {
    const many = (one) => rows.reduce((sum, row) => sum + (one.value(row) !== null), 0);
    return many(column) ? column : errors.reduce((best, one) => (many(one) > many(best) ? one : best), column);
  }
  // Texts repeat (a thousand rows have one base): each is placed once, rows compare places.
  function textOrder(keyed) {
    const distinct = [...new Set(keyed.map((entry) => entry[1]))].sort(collator.compare);
    const place = new Map(distinct.map((text, index) => [text, index]));
    return (a, b) => place.get(a) - place.get(b);
  }

  function width(column, rows) {
    if (column.kind === "number") {
      const longest = Math.max(...column.label.split(" ").map((word) => word.length));
      return Math.max(column.metric ? 116 : 100, Math.min(190, 34 + 7.2 * longest));
    }
    if (column.badge) return column.key === "verified" ? 132 : 112;
    let longest = column.label.length;
    for (const row of rows) longest = Math.max(longest, column.value(row).length);
    return Math.max(104, Math.min(column.key === "method" ? 250 : 300, 24 + 7.4 * longest));
  }

  function shownCell(column, row) {
    const value = column.value(row);
    if (column.kind === "text") return value;
    if (column.sign && value > 0) return `+${Board.number(value)}`;
    const deviation = column.deviation?.(row);
    return deviation === null || deviation === undefined ? Board.number(value) : `${Board.number(value)} ± ${Board.number(deviation)}`;
  }

  // options: caption, columns, rows (filtered), sort {key, descending}, onSort, selected (Set of keys), onSelect, link(row)
  function make(options) {
    const { columns, caption, selected } = options;
    const byKey = new Map(columns.map((column) => [column.key, column]));
    const body = el("tbody"), head = el("tr", { "aria-rowindex": "1" });
    const table = el("table", { class: "board", "aria-colcount": columns.length + 1 }, el("caption", { class: "hidden" }, caption), el("colgroup"), el("thead", {}, head), body);
    const box = el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption }, table);
    const group = table.querySelector("colgroup");
    group.append(el("col", { style: `width:${options.onSelect ? 46 : 18}px` }), ...columns.map((column) => el("col", { style: `width:${width(column, options.rows)}px` })));
    // where the second and the third column begin, for the style that keeps them in sight
    const [first, second] = [options.onSelect ? 46 : 18, columns.length ? width(columns[0], options.rows) : 0];
    table.style.setProperty("--second", `${first}px`);
    table.style.setProperty("--third", `${first + second}px`);
    const errors = options.columns.filter((column) => column.metric && column.better === "lower");
    let lines = [], sort = options.sort, from = -1, to = -1, best = new Map();

    head.append(el("th", { scope: "col" }, el("span", { class: "hidden" }, options.onSelect ? "Compare" : "Evidence")));
    for (const column of columns) {
      const button = el("button", { type: "button", onclick: () => order(column.key) }, column.label, column.unit ? el("small", {}, column.unit) : null);
      head.append(el("th", { scope: "col", class: column.kind === "number" ? "n" : null, "data-key": column.key }, button));
    }
    function order(key) {
      const column = byKey.get(key);
      const first = column.kind === "number" && column.better === "higher";
      sort = sort.key === key ? { key, descending: !sort.descending } : { key, descending: first };
      options.onSort(sort);
      arrange(options.rows);
    }
    function arrange(rows) {
      options.rows = rows;
      lines = [];
      let section = null;
      const inOrder = sections(rows), words = new Map(inOrder.map((one) => [one.key, one]));
      for (const row of ordered(rows, byKey.get(sort.key), sort.descending, inOrder, errors)) {
        if (row.section !== section) {
          section = row.section;
          lines.push({ section: words.get(section) });
        }
        lines.push({ row });
      }
      best = bestValues(rows);
      table.setAttribute("aria-rowcount", lines.length + 1);
      for (const th of head.children) {
        if (th.dataset.key === sort.key) th.setAttribute("aria-sort", sort.descending ? "descending" : "ascending");
        else th.removeAttribute("aria-sort");
        const mark = th.querySelector("button");
        if (mark) mark.dataset.sorted = th.dataset.key === sort.key ? (sort.descending ? "down" : "up") : "";
      }
      box.scrollTop = 0;
      from = to = -1;
      draw();
    }
    // The best of a column within its section, for the metrics of a benchmark with one protocol.
    function bestValues(rows) {
      const found = new Map();
      for (const column of columns) {
        if (!column.metric || !column.better) continue;
        for (const row of rows) {
          const value = column.value(row);
          if (value === null) continue;
          const key = `${row.section}\n${column.key}`, known = found.get(key);
          if (known === undefined || (column.better === "lower" ? value < known : value > known)) found.set(key, value);
        }
      }
      return found;
    }
    function draw() {
      // what the box may grow to, not what it is: it is small while few rows match, and empty before it is on the page
      const height = Math.max(box.clientHeight, innerHeight);
      const start = Math.max(0, Math.floor(box.scrollTop / ROW) - MARGIN);
      const end = Math.min(lines.length, Math.ceil((box.scrollTop + height) / ROW) + MARGIN);
      if (start === from && end === to) return;
      from = start;
      to = end;
      const focused = document.activeElement?.dataset?.focus;
      const made = [];
      if (start) made.push(el("tr", { "aria-hidden": "true" }, el("td", { colspan: columns.length + 1, style: `height:${start * ROW}px;padding:0;border:0` })));
      for (let i = start; i < end; i++) made.push(line(lines[i], i));
      if (end < lines.length) made.push(el("tr", { "aria-hidden": "true" }, el("td", { colspan: columns.length + 1, style: `height:${(lines.length - end) * ROW}px;padding:0;border:0` })));
      if (!lines.length) made.push(el("tr", {}, el("td", { colspan: columns.length + 1 }, "Nothing matches these filters.")));
      body.replaceChildren(...made);
      if (focused) body.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    }
    function line({ section, row }, index) {
      if (section) {
        const { meaning } = Board.data.provenances.find((p) => p.name === section.provenance);
        return el("tr", { class: `${section.provenance} section`, "aria-rowindex": index + 2 },
          el("th", { scope: "rowgroup", colspan: columns.length + 1 }, el("span", { class: "section" }, badge("badge", section.provenance, section.provenance), ` ${meaning}${section.words ? ` · ${section.words}` : ""} · ${section.count} ${section.count === 1 ? "row" : "rows"}`)));
      }
      const name = `${row.text("base")}, ${row.text("method")}`;
      const box = el("input", { type: "checkbox", "aria-label": `Compare ${name}`, "data-focus": `c${row.key}`, onchange: (event) => options.onSelect(row, event.target.checked) });
      box.checked = selected.has(row.key);
      const chooser = options.onSelect ? box : null;
      const cells = columns.map((column, place) => {
        const shown = shownCell(column, row);
        if (place === 0) return el("th", { scope: "row", title: shown }, el("a", { href: options.link(row), "data-focus": `l${row.key}` }, shown));
        if (column.badge) return el("td", {}, badge(...column.badge(row)));
        if (column.kind === "text") return el("td", { title: shown }, shown);
        const value = column.value(row);
        const top = value !== null && column.metric && best.get(`${row.section}\n${column.key}`) === value;
        const record = column.record?.(row);
        const content = record === undefined || record === null ? shown : el("a", { href: recordAddress(record), tabindex: "-1" }, shown);
        return el("td", { class: top ? "n best" : "n" }, content);
      });
      return el("tr", { class: row.provenance, "aria-rowindex": index + 2 }, el("td", {}, chooser), ...cells);
    }
    box.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
    addEventListener("resize", draw);
    return { box, arrange, order, lines: () => lines.filter((l) => l.row).map((l) => l.row), columns };
  }
  const badge = (kind, style, shown, title) => el("span", { class: `${kind} ${style}`, title }, shown);
  const recordAddress = (record) => `records/${encodeURIComponent(Board.data.ids[record])}.html`;
  return { make, shownCell, recordAddress, badge };
})();
