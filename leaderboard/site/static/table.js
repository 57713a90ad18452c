// A table that draws only the rows in sight; sections by provenance are kept whatever the order, so that kinds of evidence never mix.
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

const Table = (() => {
  const ROW = 34, MARGIN = 12;
  const collator = new Intl.Collator("en", { numeric: true });

  // Rows in order: sections first, then the column, rows without a value last in either direction.
  function ordered(rows, column, descending) {
    const sign = descending ? -1 : 1;
    const section = new Map(Board.provenances.map((name, place) => [name, place]));
    const keyed = rows.map((row) => [section.get(row.provenance), column ? column.value(row) : null, row]);
    const compare = column && column.kind === "number" ? (a, b) => a - b : textOrder(keyed);
    keyed.sort((a, b) => {
      if (a[0] !== b[0]) return a[0] - b[0];
      const left = a[1] === null || a[1] === "", right = b[1] === null || b[1] === "";
      if (left || right) return left === right ? 0 : left ? 1 : -1;
      return sign * compare(a[1], b[1]);
    });
    return keyed.map((entry) => entry[2]);
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
    let longest = column.label.length;
    for (const row of rows) longest = Math.max(longest, column.value(row).length);
    return Math.max(104, Math.min(300, 24 + 7.4 * longest));
  }

  function shownCell(column, row) {
    const value = column.value(row);
    if (column.kind === "text") return value;
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
    group.append(el("col", { style: "width:46px" }), ...columns.map((column) => el("col", { style: `width:${width(column, options.rows)}px` })));
    let lines = [], sort = options.sort, from = -1, to = -1, best = new Map();

    head.append(el("th", { scope: "col" }, el("span", { class: "hidden" }, "Compare")));
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
      for (const row of ordered(rows, byKey.get(sort.key), sort.descending)) {
        if (row.provenance !== section) {
          section = row.provenance;
          lines.push({ section, count: 0 });
        }
        lines.push({ row });
      }
      for (const name of Board.provenances) {
        const line = lines.find((l) => l.section === name);
        if (line) line.count = rows.reduce((sum, row) => sum + (row.provenance === name), 0);
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
          const key = `${row.provenance}\n${row.protocol}\n${column.key}`, known = found.get(key);
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
    function line({ section, count, row }, index) {
      if (section) {
        const { meaning } = Board.data.provenances.find((p) => p.name === section);
        return el("tr", { class: section, "aria-rowindex": index + 2 },
          el("th", { scope: "rowgroup", colspan: columns.length + 1 }, el("span", { class: `badge ${section}` }, section), ` ${meaning}, ${count}`));
      }
      const name = `${row.texts.base}, ${row.texts.method}`;
      const box = el("input", { type: "checkbox", "aria-label": `Compare ${name}`, "data-focus": `c${row.key}`, onchange: (event) => options.onSelect(row, event.target.checked) });
      box.checked = selected.has(row.key);
      const cells = columns.map((column, place) => {
        const shown = shownCell(column, row);
        if (place === 0) return el("th", { scope: "row", title: shown }, el("a", { href: options.link(row), "data-focus": `l${row.key}` }, shown));
        if (column.kind === "text") return el("td", { title: shown }, shown);
        const value = column.value(row);
        const top = value !== null && column.metric && best.get(`${row.provenance}\n${row.protocol}\n${column.key}`) === value;
        const record = column.record?.(row);
        const content = record === undefined || record === null ? shown : el("a", { href: recordAddress(record), tabindex: "-1" }, shown);
        return el("td", { class: top ? "n best" : "n" }, content);
      });
      return el("tr", { class: row.provenance, "aria-rowindex": index + 2 }, el("td", {}, box), ...cells);
    }
    box.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
    addEventListener("resize", draw);
    return { box, arrange, order, lines: () => lines.filter((l) => l.row).map((l) => l.row), columns };
  }
  const recordAddress = (record) => `records/${encodeURIComponent(Board.data.ids[record])}.html`;
  return { make, ordered, shownCell, recordAddress };
})();
