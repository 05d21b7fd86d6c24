"""`sae-sweep show`: each form read back, and nothing of the sweep's written."""

import csv
import io
import json
import os
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from sae_sweep import cli
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.picture import CONTROL, picture
from sae_sweep.reporting.points import read_sweep

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def show(sweep: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a form prints; the sweep's folder stays as it is."""

    def run(*arguments: str) -> str:
        before = sorted(sweep.rglob("*"))
        assert cli.main(["show", str(sweep), *arguments]) == 0
        assert sorted(sweep.rglob("*")) == before
        return capsys.readouterr().out

    return run


def test_a_table_is_the_default(show: Callable[..., str]) -> None:
    lines = show().splitlines()
    assert lines[0] == "gpt2 · blocks.6.hook_resid_post"
    assert sum(line.startswith(("gated-", "topk-", "standard")) for line in lines) == 16


def test_a_member_whose_metrics_are_damaged_is_told_of(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "topk-k_24-x16" / "metrics.json").write_text('{"l0": 3')
    assert cli.main(["show", str(sweep), "--format", "csv"]) == 0
    told = capsys.readouterr()
    assert told.out.count("\n") == 16  # fifteen members under a header
    assert told.err == "topk-k_24-x16: left out, metrics.json is damaged (not valid JSON)\n"


def test_csv_has_every_number_in_full(show: Callable[..., str], sweep: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(show("--format", "csv"))))
    points = {point["member"]: point for point in read_sweep(sweep).points}
    assert len(rows) == 16
    for row in rows:
        point = points[row["member"]]
        assert float(row["ce_recovered"]) == point["ce_recovered"]
        assert (row["architecture"], float(row["lr"]), row["mmcs_truth"]) == (point["architecture"], point["lr"], "")
    assert {row["member"] for row in rows if row["frontier"] == "overall"} == set(
        cells(list(points.values()))[0]["frontiers"]["overall"]
    )


def test_json_is_pareto_json(show: Callable[..., str], sweep: Path) -> None:
    assert json.loads(show("--format=json"))["cells"] == json.loads(json.dumps(cells(read_sweep(sweep).points)))


def test_latex_is_a_table(show: Callable[..., str]) -> None:
    lines = show("--format", "latex").splitlines()
    assert lines[1] == r"\begin{tabular}{lrrrrrrrr}"
    assert lines[3].startswith(r"member & L0 & CE recovered &")
    assert r"dead \%" in lines[3]
    row = next(line for line in lines if "topk-k\\_24-x16" in line)
    assert row.startswith(r"\textbf{topk-k\_24-x16} & 24.0 $\pm$0.3 & 0.97")
    assert row.endswith(r" \\")
    assert all(line.count("&") == 8 for line in lines[5:-2])


def test_svg_has_a_mark_for_each_member(show: Callable[..., str], sweep: Path) -> None:
    root = ET.fromstring(show("--format", "svg"))
    marks = [circle for circle in root.iter(f"{SVG}circle") if circle.get("r") == "5"]
    [cell] = cells(read_sweep(sweep).points)
    titles = {title.text.partition(":")[0] for mark in marks for title in mark if title.text}
    assert titles == {point["member"] for point in cell["points"]}
    rings = [circle for circle in root.iter(f"{SVG}circle") if circle.get("r") == "9"]
    assert len(rings) == len(cell["frontiers"]["overall"])
    at = {mark[0].text.partition(":")[0]: float(mark.get("cx", "")) for mark in marks if mark[0].text}
    assert at["topk-k_48-x16"] - at["topk-k_24-x16"] == pytest.approx(
        at["topk-k_24-x16"] - at["topk-k_12-x16"], abs=0.2
    )
    colours = {line.get("stroke") for line in root.iter(f"{SVG}polyline")}
    assert len(colours) == 4


def test_png_is_what_a_browser_draws(show: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for one, which is told where to put its picture of a page; evidence asks a real one."""
    browser = tmp_path / "bin" / "chromium"
    browser.parent.mkdir()
    said = f"open({str(tmp_path / 'said')!r}, 'w').write(open(sys.argv[-1][7:]).read())"
    put = "open(next(w[13:] for w in sys.argv if w.startswith('--screenshot=')), 'w').write('pixels')"
    browser.write_text(f"#!{sys.executable}\nimport sys\n{said}\n{put}\n")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", str(browser.parent))
    show("--format", "png", "--out", str(tmp_path / "frontier.png"))
    assert (tmp_path / "frontier.png").read_text() == "pixels"
    assert (tmp_path / "said").read_text().count("<circle") > 16


def test_a_file_takes_it_all(show: Callable[..., str], tmp_path: Path) -> None:
    assert show("--format", "csv", "--out", str(tmp_path / "members.csv")) == ""
    assert (tmp_path / "members.csv").read_text().count("\n") == 17


def test_what_cannot_be_shown_is_refused(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    os.mkfifo(sweep.parent / "pipe")
    for arguments, said in (
        (["--format", "pdf"], "show: --format=pdf is not one of table, csv, json, latex, svg, png"),
        (["--format", "png"], "is no text; give --out FILE.png"),
        (["--format", "png", "--out", "x.png"], "needs chromium or google-chrome on PATH"),
        (["--out", "gone/x.csv"], "show: --out=gone/x.csv: no such folder here"),
        (["--out", "."], ".: is there already, and no file"),
        (["--out", str(sweep.parent / "pipe")], "pipe: is there already, and no file"),
        (["more"], "show: more is no option"),
    ):
        assert cli.main(["show", str(sweep), *arguments]) == 2
        assert re.search(re.escape(said), capsys.readouterr().err)


def test_what_was_cut_to_its_l0_is_hollow(sweep: Path) -> None:
    [cell] = cells(read_sweep(sweep).points)
    cell["points"][3]["trimmed"] = True
    root = ET.fromstring(picture(cell, ["topk"]))
    marks = [circle for circle in root.iter(f"{SVG}circle") if circle.get("r") == "5"]
    hollow = [mark[0].text.partition(":")[0] for mark in marks if mark.get("fill") == "white" and mark[0].text]
    assert hollow == [cell["points"][3]["member"]]
    assert sum(mark.get("fill") == CONTROL for mark in marks) == 4, "controls are grey"
