"""docs/measured.md: its prose is written by hand, its tables and figures are made from tests/evidence/measured/."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from scripts.findings.charts import chart
from scripts.findings.numbers import Compared, Finding
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
    """A row for each series, a column for each place of each model."""
    places = [(model, x) for model, finding in own.items() for x in dict.fromkeys(row.x for row in finding.rows)]
    found = {(model, row.x, row.series): row for model, finding in own.items() for row in finding.rows}
    series = dict.fromkeys(row.series for finding in own.values() for row in finding.rows)
    lines = [[next(iter(own.values())).x, *(f"{model}, {x}" for model, x in places)], ["---", *["---:"] * len(places)]]
    for name in series:
        rows = [found.get((model, x, name)) for model, x in places]
        lines.append([name, *("" if row is None else row.text for row in rows)])
    return _table(lines)


def _compared(own: Mapping[str, Finding]) -> str:
    """A row for each two that are compared, a column for each place of each model: which is better."""
    first = next(iter(own.values()))
    found = {(model, _of(one), _at(one)): one for model, finding in own.items() for one in finding.compared}
    places = list(dict.fromkeys((model, x) for model, _, x in found))
    lines = [
        ["first", "second", *(", ".join(filter(None, (first.word, model, x))) for model, x in places)],
        ["---"] * (2 + len(places)),
    ]
    for names in dict.fromkeys(_of(one) for one in first.compared):
        verdicts = [found.get((model, names, x)) for model, x in places]
        lines.append([*names, *("" if one is None else one.verdict for one in verdicts)])
    return _table(lines)


def _of(one: Compared) -> tuple[str, str]:
    """Which two: by their series, or where these are the same at several places, by these too."""
    (a, x), (b, y) = (one.one.series, one.one.x), (one.other.series, one.other.x)
    return (a, b) if x == y else (f"{a}, {x}", f"{b}, {y}")


def _at(one: Compared) -> str:
    return str(one.one.x) if one.one.x == one.other.x else ""


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
