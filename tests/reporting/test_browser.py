"""The report in a real browser: what it shows, what its buttons do, how it fits screens and paper, how soon it answers.

tests/evidence/report.json has what was measured.
"""

import csv
import json
import os
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.folder.files import write_json_atomic
from sae_sweep.reporting.pareto import by_architecture, frontier, interpolate
from sae_sweep.reporting.report import write_report
from tests.e2e.evidence import machine
from tests.reporting.synthetic import SIZES, write_many
from tests.reporting.test_report import quiet

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-browser" / "bin" / "python"
OUT = ROOT / "tests" / "evidence" / "report.json"
MOST_BYTES, MOST_MS = 10_000_000, 3_000
"""Time is that of the page's own thread until it answers: on a machine with nothing else to do, the reader's."""

pytestmark = pytest.mark.evidence


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page, and what the page was made from."""

    size: int
    folder: Path
    found: dict[str, Any]
    cells: list[dict[str, Any]]

    @property
    def points(self) -> dict[str, dict[str, Any]]:
        return {point["member"]: point for cell in self.cells for point in cell["points"]}


@pytest.fixture(scope="module", params=SIZES)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON.parents[1].name} is missing; run `make .venv-browser`", pytrace=False)
    size = request.param
    folder = write_many(tmp_path_factory.mktemp("page") / f"made{size}", **SIZES[size])
    cells = write_report(folder, quiet())
    command = [PYTHON, Path(__file__).with_name("browser.py"), folder / "report.html", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    entries = json.loads(OUT.read_text()) if OUT.is_file() else {}
    own = {
        "bytes": (folder / "report.html").stat().st_size,
        "interactive_cpu_ms": found["busy_ms"],
        "interactive_ms": found["ready_ms"],
        "first_chart_ms": found["drawn_ms"],
        "looks": {look: len(said["problems"]) + len(said["wrong"]) for look, said in found["looks"].items()},
    }
    browser = {"browser": found["browser"], "load": round(os.getloadavg()[0], 1), "machine": machine()}
    write_json_atomic(OUT, {**entries, f"{size} members": own, **browser})
    return Seen(size, folder, found, cells)


def test_it_is_small_and_quick(seen: Seen) -> None:
    assert (seen.folder / "report.html").stat().st_size < MOST_BYTES
    assert seen.found["busy_ms"] < MOST_MS


def test_it_complains_of_nothing_and_asks_for_nothing(seen: Seen) -> None:
    assert seen.found["wrong"] == []
    assert [said["wrong"] for said in seen.found["looks"].values()] == [[]] * 4


def test_nothing_overlaps_or_is_clipped(seen: Seen) -> None:
    assert [(look, said["problems"]) for look, said in seen.found["looks"].items() if said["problems"]] == []
    assert seen.found["member"]["problems"] == []


def test_points_are_those_of_pareto_json(seen: Seen) -> None:
    first = {point["member"] for point in seen.cells[0]["points"]}
    assert seen.found["filters"]["all"]["points"] == sorted(first)
    for label, (l0, kl) in seen.found["axis"]["members"].items():
        assert (l0, kl) == pytest.approx((seen.points[label]["l0"], seen.points[label]["kl"]), rel=1e-12)
    assert set(seen.found["axis"]["members"]) == first


def test_the_frontier_is_of_the_measure_that_is_shown(seen: Seen) -> None:
    assert seen.found["axis"]["title"] == "KL(clean ‖ SAE)"
    points = [{**point, "kl": -point["kl"]} for point in seen.cells[0]["points"]]
    best = {seen.points[label]["l0"]: seen.points[label]["kl"] for label in frontier(points, y="kl")}
    assert dict(zip(*seen.found["axis"]["rings"], strict=True)) == pytest.approx(best)


def test_filters_act_on_all_together(seen: Seen) -> None:
    found, out = seen.found["filters"], seen.found["filters"]["first"]
    of = {label: point["architecture"] for label, point in seen.points.items()}
    here = {point["member"] for point in seen.cells[0]["points"]}
    for state, kept in (("without", lambda name: name != out), ("alone", lambda name: name == out)):
        labels = [label for label, name in of.items() if kept(name)]
        assert found[state]["said"] == f"{len(labels)} of {seen.size} members"
        assert found[state]["rows"] == found[state]["curves"] == len(labels)
        assert found[state]["points"] == sorted(here & set(labels))
    assert found["again"] == found["all"]
    assert found["all"]["rows"] == found["all"]["curves"] == seen.size


def test_matched_l0_is_what_python_reads_off(seen: Seen) -> None:
    groups = by_architecture(seen.cells[0]["points"])
    heads, *rows = seen.found["matched"]
    assert heads == ["L0", *groups]
    assert len(rows) >= 3
    for level, *shown in rows:
        expected = [interpolate(points, int(level)) for points in groups.values()]
        assert shown == ["–" if value is None else f"{value:.4f}" for value in expected]


def test_layers_are_seen_together_and_alone(seen: Seen) -> None:
    found = seen.found["layers"]
    if seen.size != 300:
        assert found == {}
        return
    lines = {trace["name"]: trace for trace in found["lines"]}
    assert set(lines) == {point["architecture"] for point in seen.points.values()}
    for name, line in lines.items():
        assert line["x"] == [2, 4, 6, 8, 10]
        expected = [interpolate(by_architecture(cell["points"])[name], found["level"]) for cell in seen.cells]
        assert line["y"] == pytest.approx(expected)
    assert (found["alone"]["cells"], found["alone"]["rows"], found["alone"]["curves"]) == (1, 60, 60)


def test_any_axis_is_a_colour(seen: Seen) -> None:
    colours = seen.found["axis"]["colours"]
    assert colours["architecture"] == sorted({point["architecture"] for point in seen.cells[0]["points"]})
    if "width" in colours:
        assert colours["width"] == ["6144", "24576"]
    assert set(colours) == {"architecture", "sparsity"} | ({"seed"} if seen.size == 60 else set()) | (
        {"width", "lr"} if seen.size == 300 else set()
    )


def test_a_member_has_a_page(seen: Seen) -> None:
    found = seen.found["member"]
    for expected in (found["asked"], "Numbers", f'ss.load("{seen.folder}/{found["asked"]}")', "Config", "node7"):
        assert expected in found["text"]
    assert 0 < found["latents"] <= 20
    assert 300 < found["density"] < 512, "some never fired"
    assert found["hash"].endswith(f"#member={found['asked']}")
    assert found["closed"]
    assert found["opened"] == found["clicked"]


def test_buttons_give_files(seen: Seen) -> None:
    names = seen.found["exports"]
    rows = list(csv.DictReader((seen.folder / names["csv"]).open(encoding="utf-8")))
    assert len(rows) == seen.size
    for row in rows:
        assert float(row["ce_recovered"]) == seen.points[row["member"]]["ce_recovered"]
        assert float(row["l0_se"]) == seen.points[row["member"]]["l0_se"]
    table = (seen.folder / names["latex"]).read_text(encoding="utf-8")
    assert table.count(r"\\") == seen.size + 1
    assert r"$\pm$" in table
    root = ET.fromstring((seen.folder / names["svg"]).read_text(encoding="utf-8"))
    text = " ".join(root.itertext())
    assert "L0 (active latents per token, log scale)" in text
    assert {point["architecture"] for point in seen.cells[0]["points"]} <= set(text.split())
    assert (seen.folder / names["png"]).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_column_can_be_left_out(seen: Seen) -> None:
    assert "KL" not in seen.found["columns"]
    assert {"Member", "L0", "CE recovered", "FVU"} < set(seen.found["columns"])
    assert "Tokens" not in seen.found["columns"], "all alike"


def test_results_of_analyses_are_drawn(seen: Seen) -> None:
    assert seen.found["figures"] == [[None], ["SAEs", "random"]]


def test_members_of_one_kind_share_a_key(seen: Seen) -> None:
    assert [text.split("\n") for text in seen.found["keys"]][1:] == [
        ["SAEs", "random"],
        ["topk-k_12, 2 seeds", "at random"],
    ]


def test_a_map_names_members_by_what_sets_them_apart(seen: Seen) -> None:
    labels = seen.found["labels"]
    assert len(set(labels)) == len(labels) == 6
    assert "…" not in "".join(labels)
