// Files that the page gives: nothing leaves the browser.
function saveUrl(url, name) {
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

function saveText(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  saveUrl(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const csvField = value => value === null || value === undefined ? "" : /[",\n]/.test(String(value)) ? `"${String(value).replace(/"/g, '""')}"` : String(value);
const csv = rows => rows.map(row => row.map(csvField).join(",")).join("\n") + "\n";

const TEX = { "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "–": "--", "γ": "$\\gamma$", "‖": "$\\|$" };
const tex = text => String(text).replace(/[\\&%$#_{}~^±–γ‖]/g, found => TEX[found]);

// A booktabs table; `numeric` says which columns are set to the right.
function latex(heads, rows, numeric) {
  const line = row => row.map(tex).join(" & ") + " \\\\";
  return [
    `\\begin{tabular}{${numeric.map(right => right ? "r" : "l").join("")}}`, "\\toprule", line(heads), "\\midrule",
    ...rows.map(line), "\\bottomrule", "\\end{tabular}", "",
  ].join("\n");
}
