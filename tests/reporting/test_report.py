import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from rich.console import Console

from sae_sweep.evaluation.metrics import METRICS, REPORT
from sae_sweep.plan.axes import axes
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.points import read_sweep
from sae_sweep.reporting.report import write_report
from sae_sweep.reporting.sections.curves import MOST_POINTS, read_curves, thinned
from sae_sweep.reporting.table import aligned, columns, frontier_marks, print_frontier
from tests.reporting.synthetic import write_many


class Page(HTMLParser):
    """The links, script contents and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.scripts: dict[str, str] = {}
        self.shown: list[str] = []
        self.tags: list[str] = []
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag in ("script", "style"):
            self._script = dict(attrs).get("id") or f"{tag}{len(self.scripts)}"

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        else:
            self.shown.append(data)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_report_is_made_from_the_folder(sweep: Path) -> None:
    console = quiet()
    found = write_report(sweep, console)
    assert json.loads((sweep / "pareto.json").read_text())["cells"] == json.loads(json.dumps(found))
    text = said(console)
    for expected in (str(sweep / "report.html"), "pareto.json", "16 members finished, 2 not"):
        assert expected in text
    assert "gated-l1_0.05-x16: failed, loss is not finite at step 1200 (<nan>)" in text
    assert not list(sweep.glob("*.tmp")) + list(sweep.glob(".*.tmp"))


def test_page_needs_nothing_from_outside(sweep: Path) -> None:
    write_report(sweep, quiet())
    page = Page((sweep / "report.html").read_text(encoding="utf-8"))
    assert page.links == []
    assert "link" not in page.tags
    assert "@import" not in page.scripts["style0"]
    assert "url(" not in page.scripts["style0"]


def test_page_carries_its_data_and_plotly_once(sweep: Path) -> None:
    found = write_report(sweep, quiet())
    text = (sweep / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    data = json.loads(page.scripts["data"])
    assert data["cells"] == [
        {key: value for key, value in cell.items() if key != "seeds"} for cell in json.loads(json.dumps(found))
    ]
    curves = data["sections"]["curves"]
    assert [curve["member"] for curve in curves] == [point["member"] for point in found[0]["points"]]
    assert all(
        len(curve["tokens"]) == len(curve["l0"]) == len(curve["loss"]) == 40 for curve in data["sections"]["curves"]
    )
    assert len(re.findall(r"\* plotly\.js v", text)) == 1


def test_page_tells_of_every_member(sweep: Path) -> None:
    write_report(sweep, quiet())
    text = " ".join(Page((sweep / "report.html").read_text(encoding="utf-8")).shown)
    for expected in ("topk-k_96-x16", "blocks.6.hook_resid_post", "(<nan>)", "3.4120 nats", "zero ablation"):
        assert expected in text
    assert "16 finished, 1 running, 1 failed" in text


def test_interrupted_members_are_counted(sweep: Path) -> None:
    entries = json.loads((sweep / "sweep.json").read_text())
    next(one for one in entries["members"].values() if one["state"] == "running")["state"] = "interrupted"
    (sweep / "sweep.json").write_text(json.dumps(entries))
    write_report(sweep, quiet())
    text = " ".join(Page((sweep / "report.html").read_text(encoding="utf-8")).shown)
    assert "16 finished, 1 interrupted, 1 failed" in text


def test_names_cannot_break_the_page(sweep: Path) -> None:
    def rename(entries: dict[str, Any]) -> None:
        entries["name"] = "</title><script>alert(1)</script>"
        entries["members"]["topk-k_192-x16"] |= {"state": "failed", "reason": "</script><img src=x>"}
        entries["members"]["topk-k_24-x16"]["config"]["model"]["path"] = "a</script><b>"

    entries = json.loads((sweep / "sweep.json").read_text())
    rename(entries)
    (sweep / "sweep.json").write_text(json.dumps(entries))
    write_report(sweep, quiet())
    page = Page((sweep / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("script") == 3
    assert "img" not in page.tags
    assert len(json.loads(page.scripts["data"])["cells"]) == 2


def test_damaged_metrics_are_told_and_passed_over(sweep: Path) -> None:
    (sweep / "topk-k_24-x16" / "metrics.json").write_text("{")
    console = quiet()
    [cell] = write_report(sweep, console)
    assert len(cell["points"]) == 15
    assert "topk-k_24-x16: left out, metrics.json is damaged" in said(console)
    assert "topk-k_24-x16: left out" in (sweep / "report.html").read_text(encoding="utf-8")


def test_without_a_finished_member(sweep: Path) -> None:
    entries = json.loads((sweep / "sweep.json").read_text())
    for member in entries["members"].values():
        member["state"] = "planned"
    (sweep / "sweep.json").write_text(json.dumps(entries))
    console = quiet()
    assert write_report(sweep, console) == []
    assert "no finished member yet, of 18" in said(console)
    assert json.loads((sweep / "pareto.json").read_text()) == {"version": 1, "cells": []}
    assert "No member is finished yet" in (sweep / "report.html").read_text(encoding="utf-8")


def test_two_sites_are_two_charts(make_sweep: Callable[..., Path]) -> None:
    folder = make_sweep(layers=(3, 6), lines=3)
    write_report(folder, quiet())
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert 'data-cell="0"' in text
    assert 'data-cell="1"' in text


def test_curves_are_thinned_and_torn_lines_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "tokens": 10 * step, "l0": 5.0, "loss": None} for step in range(1001)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 1001, "tok')
    curves = read_curves(file)
    assert len(curves["tokens"]) == MOST_POINTS
    assert (curves["tokens"][0], curves["tokens"][-1]) == (0, 10_000)
    assert curves["loss"][5] is None
    assert thinned(rows[:7]) == rows[:7]
    assert read_curves(tmp_path / "none")["tokens"] == []


def test_plain_table(sweep: Path) -> None:
    [cell] = cells(read_sweep(sweep).points)
    console = quiet()
    print_frontier(cell, console)
    lines = said(console).splitlines()
    assert re.split(r"\s{2,}", lines[0].strip()) == (
        ["member", "L0", "CE recovered", "CE delta", "KL", "FVU", "gamma", "dead %", "alive %", "frontier"]
    )
    assert [line.split()[0] for line in lines[1:5]] == [
        f"gated-l1_{l1}-x16" for l1 in ("0.0012", "0.0006", "0.0003", "0.00015")
    ]
    row = next(line for line in lines if line.startswith("topk-k_24-x16"))
    assert re.match(r"topk-k_24-x16 +24\.0 ±0\.3 +0\.97\d\d ±0\.0012 .* overall$", row)
    assert "\x1b" not in said(console)


def test_what_varies_has_columns_where_there_is_room(sweep: Path) -> None:
    record = read_sweep(sweep)
    [cell] = cells(record.points)
    for width, titles in ((200, ["sae", "sparsity"]), (100, [])):
        console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
        print_frontier(cell, console, axes(record.configs))
        assert [word for word in ("sae", "sparsity") if word in said(console).splitlines()[0].split()] == titles
    console = quiet()
    print_frontier(cell, console, axes(record.configs))
    row = next(line for line in said(console).splitlines() if line.startswith("topk-k_24-x16"))
    assert re.split(r"\s{2,}", row)[1:3] == ["topk", "k 24"]


def test_means_over_seeds_fit_a_terminal(tmp_path: Path) -> None:
    """As many metrics as there is room for; a log has all."""
    folder = write_many(tmp_path / "seeds", architectures=("topk",), seeds=(0, 1), lines=2, latents=0)
    told = {}
    for width, terminal in ((80, True), (200, False)):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None)
        write_report(folder, console)
        lines = said(console).splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith("mean ± deviation over seeds"))
        told[width] = lines[first : first + 5]
        assert lines[-1] == f"open {folder / 'report.html'} in a browser; its numbers: pareto.json"
    assert max(map(len, told[80])) <= 80 < max(map(len, told[200]))
    assert [line.split()[:3] for line in told[80]] == [line.split()[:3] for line in told[200]]


def test_table_of_undefined_numbers(sweep: Path) -> None:
    [cell] = cells(read_sweep(sweep).points)
    points = [cell["points"][0] | {"l0": None, "ce_recovered": None, "gamma": None}, cell["points"][1]]
    console = quiet()
    print_frontier(cell | {"points": points}, console)
    assert said(console).splitlines()[2].split()[1:3] == ["-", "-"]


def test_later_sites_have_a_column_where_they_were_watched(sweep: Path) -> None:
    [cell] = cells(read_sweep(sweep).points)
    points = [cell["points"][0] | {"later_fvu": 0.25}, *cell["points"][1:]]
    console = quiet()
    print_frontier(cell | {"points": points}, console)
    lines = said(console).splitlines()
    assert lines[0].split()[-3:] == ["later", "FVU", "frontier"]
    row = next(line for line in lines if line.startswith(points[0]["member"]))
    assert "0.2500" in row.split()
    assert "\n".join(lines).count("0.2500") == 1
    assert METRICS["later_fvu"] in columns([cell | {"points": points}], REPORT)
    assert METRICS["later_fvu"] not in columns([cell], REPORT)


def test_drawn_table_on_a_terminal(sweep: Path) -> None:
    [cell] = cells(read_sweep(sweep).points)
    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    print_frontier(cell, console)
    assert "\x1b[1m" in said(console)
    assert "standard_april-l1_20-x16" in said(console)


def test_frontier_marks(sweep: Path) -> None:
    [cell] = cells(read_sweep(sweep).points)
    marks = frontier_marks(cell)
    assert {label for label, mark in marks.items() if mark == "overall"} == set(cell["frontiers"]["overall"])
    assert marks["standard-l1_0.004-x16"] == "own"


def test_columns_line_up() -> None:
    assert aligned(["m", "n", "f"], [["aa", "1", "x"], ["b", "10", ""]]) == ["m    n  f", "aa   1  x", "b   10"]
