"""The report of synthetic activations: no cross-entropy, known latents, heat maps."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.points import read_sweep
from sae_sweep.reporting.report import write_report
from sae_sweep.reporting.sections.heatmaps import grids, maps
from tests.reporting.conftest import sae_entries
from tests.reporting.test_report import Page, said

TOY = {"dimensions": 256, "latents": 512, "active": 5.0, "decay": 0.99, "correlated": True, "noise": 0.0}
WIDTHS, COEFFICIENTS = (128, 512, 2048), (0.3, 0.1)


def toy_member(width: int, l1: float, seed: int) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Label, config and metrics; every number says which member it is of."""
    config = {
        "seed": seed,
        "model": {"path": None, "revision": None, "dtype": "float32", "d_model": None},
        "site": {"kind": None, "layer": None, "hook": None},
        "data": {"kind": "toy", "toy": TOY, "seed": 0, "context": 128, "path": None},
        "sae": sae_entries("standard") | {"width": width, "expansion": None, "l0": None, "l1": l1},
        "training": {"tokens": 5e5, "batch_size": 512, "lr": 1e-3},
        "evaluation": {"tokens": 1e5, "every": None, "positions": "counted"},
    }
    metrics = dict.fromkeys(METRICS, None) | {
        "l0": 2 / l1 + width / 1000,
        "fvu": l1 + seed / 100,
        "explained_variance": 1 - l1 - seed / 100,
        "dead_fraction": 0.0,
        "alive": 1.0,
        "mmcs_truth": width / 4000 + seed / 10,
        "mmcs_truth_frequent": 0.999,
        "mmcs_latents": None if width == 128 else 0.5,
        "tokens_evaluated": 100_096,
        "tokens_trained": 499_712,
    }
    return f"standard-l1_{l1:g}-w{width}" + (f"-{seed}" if seed else ""), config, metrics


@pytest.fixture
def write_toy(tmp_path: Path) -> Callable[..., Path]:
    def write(*members: tuple[int, float, int]) -> Path:
        folder = tmp_path / "toy"
        entries: dict[str, Any] = {}
        for number, which in enumerate(members):
            label, config, metrics = toy_member(*which)
            (folder / label).mkdir(parents=True)
            (folder / label / "metrics.json").write_text(json.dumps(metrics))
            entries[label] = {"identity": f"{number:016x}", "state": "finished", "config": config}
        (folder / "sweep.json").write_text(json.dumps({"version": 1, "name": "toy", "members": entries}))
        return folder

    return write


@pytest.fixture
def toy(write_toy: Callable[..., Path]) -> Path:
    """Three sizes by two coefficients."""
    return write_toy(*((width, l1, 0) for l1 in COEFFICIENTS for width in WIDTHS))


def test_toy_members_are_one_cell_whose_frontier_is_of_explained_variance(toy: Path) -> None:
    [cell] = cells(read_sweep(toy).points)
    assert cell["fidelity"] == "explained_variance"
    assert cell["frontiers"]["overall"] == ["standard-l1_0.3-w128", "standard-l1_0.1-w128"]
    assert cell["key"]["evaluation"]["data"]["toy"] == TOY
    assert cell["key"]["model"] == "toy"


def test_activations_made_otherwise_are_another_cell(toy: Path) -> None:
    entries = json.loads((toy / "sweep.json").read_text())
    entries["members"]["standard-l1_0.3-w128"]["config"]["data"]["toy"] = TOY | {"latents": 64}
    entries["members"]["standard-l1_0.1-w128"]["config"]["data"]["seed"] = 1
    (toy / "sweep.json").write_text(json.dumps(entries))
    assert [len(cell["points"]) for cell in cells(read_sweep(toy).points)] == [1, 4, 1]


def test_the_grid_holds_every_number_in_its_place(toy: Path) -> None:
    [cell] = cells(read_sweep(toy).points)
    [grid] = grids(cell)
    assert (grid["architecture"], grid["knob"]) == ("standard", "l1")
    assert (grid["widths"], grid["values"]) == ([128, 512, 2048], [0.1, 0.3])
    assert grid["members"] == [[1, 1]] * 3
    assert grid["maps"]["mmcs_truth"] == [[0.032, 0.032], [0.128, 0.128], [0.512, 0.512]]
    assert grid["maps"]["fvu"] == [[0.1, 0.3]] * 3
    assert grid["maps"]["mmcs_latents"] == [[None, None], [0.5, 0.5], [0.5, 0.5]]
    assert list(grid["maps"]) == [
        "mmcs_truth",
        "mmcs_truth_frequent",
        "mmcs_latents",
        "l0",
        "fvu",
        "dead_fraction",
        "l1",
    ]


def test_members_of_one_place_are_averaged_and_a_gap_stays_empty(write_toy: Callable[..., Path]) -> None:
    folder = write_toy((128, 0.1, 0), (128, 0.1, 2), (512, 0.1, 0), (128, 0.3, 0))
    [grid] = grids(cells(read_sweep(folder).points)[0])
    assert grid["members"] == [[2, 1], [1, 0]]
    assert grid["maps"]["mmcs_truth"] == [[pytest.approx(0.132), 0.032], [0.128, None]]


@pytest.mark.parametrize("members", [((128, 0.1, 0), (512, 0.1, 0)), ((128, 0.1, 0), (128, 0.3, 0))])
def test_a_row_or_a_column_is_no_grid(write_toy: Callable[..., Path], members: Any) -> None:
    folder = write_toy(*members)
    assert grids(cells(read_sweep(folder).points)[0]) == []


def test_a_language_models_cell_has_no_grid(sweep: Path) -> None:
    [cell] = cells(read_sweep(sweep).points)
    assert grids(cell) == []


def test_the_page_has_a_map_for_each_number_and_nothing_of_a_model(toy: Path) -> None:
    write_report(toy, Console(file=io.StringIO()))
    text = (toy / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    data = json.loads(page.scripts["data"])
    assert data["sections"]["heatmaps"] == json.loads(json.dumps([grids(cell) for cell in data["cells"]]))
    for metric in maps():
        assert text.count(f"data-map={metric.key} ") == 1
    shown = " ".join(" ".join(page.shown).split())
    for expected in (
        "512 true latents in 256 dimensions",
        "MMCS",
        "At matched L0: explained variance",
        "5, correlated",
    ):
        assert expected in shown
    for absent in ("CE recovered", "ablation", "nats", "None"):
        assert absent not in shown
    assert 'value="explained_variance"' in text
    assert 'value="ce_recovered"' not in text


def test_a_language_models_page_has_no_map(sweep: Path) -> None:
    write_report(sweep, Console(file=io.StringIO()))
    page = Page((sweep / "report.html").read_text(encoding="utf-8"))
    assert json.loads(page.scripts["data"])["sections"]["heatmaps"] == [[]]
    assert "MMCS" not in " ".join(page.shown)


def test_the_table_shows_what_toy_members_have(toy: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    write_report(toy, console)
    lines = said(console).splitlines()
    assert lines[0] == "synthetic activations · 512 true latents in 256 dimensions"
    assert lines[1] == "on 100k held-out activations"
    heads = [head.strip() for head in lines[2].split("  ") if head]
    first = heads.index("L0")
    assert heads[first : first + 5] == ["L0", "expl. var.", "MMCS truth", "MMCS freq.", "MMCS latents"]
    row = re.split(r"\s{2,}", next(line for line in lines if line.startswith("standard-l1_0.1-w512")))
    assert row[heads.index("sparsity")] == "l1 0.1"
    assert row[first : first + 5] == ["20.5", "0.9000", "0.128", "0.999", "0.500"]
