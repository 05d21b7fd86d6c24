"""docs/measured.md: its prose is written by hand, its tables and figures are made from tests/evidence/measured/."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from scripts.findings.charts import chart
from scripts.findings.numbers import Finding
from scripts.findings.questions import QUESTIONS

ROOT = Path(__file__).resolve().parents[2]
PAGE, IMAGES, NUMBERS = (
    ROOT / "docs" / "measured.md",
    ROOT / "docs" / "images",
    ROOT / "tests" / "evidence" / "measured",
)
MARK = re.compile(r"(<!-- (measured|compared) (\w+) -->\n)(?:\n(?:\|.*\n)+)?")
LOG_Y = ("perturbation", "inference_topn", "prune_dense")
"""The figures whose numbers are many times each other."""

Found = Mapping[str, Mapping[str, Finding]]
"""By model, then by the table's name."""


def read() -> dict[str, dict[str, Finding]]:
    """What was measured."""
    found = {}
    for file in sorted(NUMBERS.glob("*.json")):
        entries = json.loads(file.read_text(encoding="utf-8"))
        found[entries["about"]["name"]] = {name: Finding.of_json(one) for name, one in entries["findings"].items()}
    return found


def renewed(text: str, found: Found) -> str:
    """The page with the tables of these numbers."""

    def table(mark: re.Match[str]) -> str:
        own = {model: findings[mark[3]] for model, findings in found.items() if mark[3] in findings}
        return f"{mark[1]}\n{(_measured if mark[2] == 'measured' else _compared)(own)}"

    return MARK.sub(table, text)


def _measured(own: Mapping[str, Finding]) -> str:
    """Every row: what, where, and each model's number."""
    first = next(iter(own.values()))
    lines = [["", first.x, *own], ["---"] * 2 + ["---:"] * len(own)]
    places = dict.fromkeys((row.series, row.x) for finding in own.values() for row in finding.rows)
    for series, x in places:
        rows = [next((r for r in one.rows if (r.series, r.x) == (series, x)), None) for one in own.values()]
        lines.append([series, str(x), *("" if row is None else row.text for row in rows)])
    return _table(lines)


def _compared(own: Mapping[str, Finding]) -> str:
    """Every pair: what it is of, and which is better on each model."""
    first = next(iter(own.values()))
    lines = [["the first", "the second", first.x, *(f"better, {model}" for model in own)]]
    lines.append(["---"] * (3 + len(own)))
    for number, one in enumerate(first.compared):
        verdicts = [finding.compared[number].verdict for finding in own.values()]
        x = f"{one.one.x}" if one.one.x == one.other.x else f"{one.one.x}; {one.other.x}"
        lines.append([one.one.series, one.other.series, x, *verdicts])
    return _table(lines)


def _table(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def figures(found: Found) -> dict[str, str]:
    """Each question's SVG, by its file's name."""
    made = {}
    for name in QUESTIONS:
        table = next((t for findings in found.values() for t in findings if t in FIGURES.get(name, (name,))), name)
        own = {model: findings[table] for model, findings in found.items() if table in findings}
        if own:
            made[f"measured_{name}.svg"] = chart(own, name in LOG_Y)
    return made


FIGURES = {"controls": ("controls_ce_recovered",), "seeds": ("matching",)}
"""The table that is drawn, where it has another name than its question."""


def write() -> None:
    """The page, and its figures."""
    found = read()
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    for name, text in figures(found).items():
        (IMAGES / name).write_text(text, encoding="utf-8")
