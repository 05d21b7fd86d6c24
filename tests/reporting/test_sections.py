"""A section from another package, and a metric that is a row of the table and nothing else."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from sae_sweep.evaluation.metrics import AXIS, METRICS, TABLES, Metric
from sae_sweep.reporting.report import write_report
from tests.reporting.test_report import Page, said

THEIRS = """
PLACE, SPAN = 55, "half"


def html(page, cell):
    return f"<p class=theirs>{len(cell['points'])} members of {page.record.name}</p>"


def data(page):
    return [len(cell["points"]) for cell in page.cells]
"""


def test_a_section_is_added_from_outside(make_sweep: Callable[..., Path], install: Callable[..., None]) -> None:
    files = {"__init__.py": "", "counts.py": THEIRS, "counts.js": "document.title = String(data[0]);\n"}
    install("theirs", files, "[sae_sweep.sections]\ncounts = theirs.counts\n")
    folder = make_sweep(layers=(3, 6), lines=3)
    write_report(folder, Console(file=io.StringIO()))
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text.count("<p class=theirs>16 members of gated_vs_topk</p>") == 2, "in each cell"
    assert text.index("At matched L0") < text.index("<p class=theirs>") < text.index("<h2>Members</h2>")
    page = Page(text)
    assert json.loads(page.scripts["data"])["sections"]["counts"] == [16, 16]
    assert '{\nconst data = sections["counts"];\ndocument.title = String(data[0]);\n}' in text


def test_a_metric_is_a_row(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Metric(
        *("splits", "split %", "split latents", "Latents that should be one."),
        models=TABLES | AXIS,
        unit="fraction",
        digits=2,
        scale=100,
        error="splits_se",
        better="lower",
    )
    monkeypatch.setitem(METRICS, "splits", row)
    file = sweep / "topk-k_24-x16" / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"splits": 0.12345, "splits_se": 0.01}))
    console = Console(file=io.StringIO(), width=250)
    write_report(sweep, console)
    lines = said(console).splitlines()
    assert "split %" in next(line for line in lines if line.startswith("member"))
    assert "12.35 ±1.00" in next(line for line in lines if line.startswith("topk-k_24-x16"))
    text = (sweep / "report.html").read_text(encoding="utf-8")
    assert ">12.35 ±1.00</td>" in text
    assert "<dt>split %</dt><dd>Latents that should be one.</dd>" in text
    assert '<option value="splits">Split latents</option>' in text
    told = json.loads(Page(text).scripts["data"])["metrics"]["splits"]
    assert told["axis"] == "split latents, fraction (lower is better)"


def test_rows_agree_with_each_other() -> None:
    assert all(metric.error is None or metric.error in METRICS for metric in METRICS.values())
    assert METRICS["gamma"].heading == "γ, relative reconstruction bias"
    assert METRICS["dead_fraction"].heading == "Dead latents, fraction"
    titles = [metric.title for metric in METRICS.values()]
    assert len(set(titles)) == len(titles)
