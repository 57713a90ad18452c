// What the reader sees, as a file: the rows and columns of the table in their order.
"use strict";
const Export = (() => {
  // A spreadsheet runs a cell that begins like a formula; an apostrophe makes it text.
  const plain = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const head = (column) => (column.unit ? `${column.label} / ${column.unit}` : column.label);

  // Where a number comes from stands first in every line, whether its columns are shown or not.
  const FIRST = ["provenance", "verified"];
  const others = (columns) => columns.filter((column) => !FIRST.includes(column.key));
  // With each error its standard deviation, where any row has one.
  const withDeviations = (columns, rows) => others(columns).flatMap((column) => {
    if (!column.deviation || !rows.some((row) => column.deviation(row) !== null)) return [column];
    return [column, { kind: "number", label: `${column.label}, standard deviation`, unit: column.unit, value: column.deviation }];
  });

  function csv(columns, rows) {
    columns = withDeviations(columns, rows);
    const cell = (column, row) => {
      const value = column.value(row);
      return column.kind === "number" ? (value === null ? "" : String(value)) : quoted(plain(value));
    };
    const lines = [[...FIRST, ...columns.map(head)].map((text) => quoted(plain(text))).join(",")];
    for (const row of rows) lines.push([...FIRST.map((key) => quoted(row.text(key))), ...columns.map((column) => cell(column, row))].join(","));
    return lines.join("\r\n") + "\r\n";
  }
  function json(columns, rows) {
    columns = withDeviations(columns, rows);
    return JSON.stringify(rows.map((row) => ({
      ...Object.fromEntries(FIRST.map((key) => [key, row.text(key)])), records: row.records.map((i) => Board.data.ids[i]),
      ...Object.fromEntries(columns.map((column) => [head(column), column.value(row)])),
    })), null, 1) + "\n";
  }
  const LATEX = { "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "\u202f": "\\,", "±": "$\\pm$", "Å": "\\AA{}", "–": "--", "\u2212": "$-$", "·": "$\\cdot$" };
  const escaped = (text) => text.replace(/[\\{}&%$#_~^\u202f±Å–\u2212·]/g, (sign) => LATEX[sign]);

  function latex(columns, rows) {
    columns = others(columns);
    const lines = ["% needs \\usepackage{booktabs}", `\\begin{tabular}{ll${columns.map((column) => (column.kind === "number" ? "r" : "l")).join("")}}`, "\\toprule"];
    lines.push([...FIRST, ...columns.map(head)].map(escaped).join(" & ") + " \\\\", "\\midrule");
    for (const row of rows) lines.push([...FIRST.map((key) => row.text(key)), ...columns.map((column) => Table.shownCell(column, row))].map(escaped).join(" & ") + " \\\\");
    return [...lines, "\\bottomrule", "\\end{tabular}", ""].join("\n");
  }
  const KINDS = { CSV: ["csv", "text/csv", csv], JSON: ["json", "application/json", json], LaTeX: ["tex", "application/x-tex", latex] };

  function download(kind, name, columns, rows) {
    const [ending, type, made] = KINDS[kind];
    const address = URL.createObjectURL(new Blob([made(columns, rows)], { type: `${type};charset=utf-8` }));
    const link = el("a", { href: address, download: `${name.replace(/[^A-Za-z0-9._-]+/g, "-")}.${ending}` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  }
  return { kinds: Object.keys(KINDS), csv, json, latex, download };
})();
