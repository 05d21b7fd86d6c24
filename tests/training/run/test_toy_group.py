"""A whole sweep on synthetic activations, small enough for seconds: trained, judged, saved, reported."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.folder.sweep import MemberResult
from sae_sweep.reporting.report import write_report
from sae_sweep.training.run.opening import open_group
from tests.evaluation.groups import Planned, planned

SHARED = (
    *("name=toy", "tracking=none", "data=toy", "model.device=cpu"),
    *("data.toy.dimensions=20", "data.toy.latents=24", "data.toy.active=2", "data.toy.decay=1"),
    *("data.context=32", "data.block_rows=64", "evaluation.tokens=2000"),
    *("training.tokens=1.5e5", "training.batch_size=256", "training.lr=1e-2", "training.lr_decay_fraction=0.3"),
)
MEMBERS = {
    "small": ("sae=standard_paper", "sae.width=6", "sae.l1=0.15"),
    "large": ("sae=standard_paper", "sae.width=48", "sae.l1=0.15"),
    "dense": ("sae=standard_paper", "sae.width=48", "sae.l1=0.001"),
    "topk": ("sae=topk", "sae.width=48", "sae.k=3"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    return planned([f"output_dir={tmp_path_factory.mktemp('outputs')}", *SHARED], MEMBERS)


@pytest.fixture(scope="module")
def results(made: Planned) -> dict[str, MemberResult]:
    opened = open_group(made.group)
    found = opened.run(made.folder)
    made.folder.mark(found, "finished", None)
    return found


@pytest.fixture
def metrics(made: Planned, results: dict[str, MemberResult]) -> dict[str, dict[str, Any]]:
    assert {label: result.reason for label, result in results.items()} == {made.label(name): None for name in MEMBERS}
    return {name: json.loads((made.member_folder(name) / "metrics.json").read_text()) for name in MEMBERS}


def test_every_member_has_the_closed_list_of_metrics(metrics: dict[str, dict[str, Any]]) -> None:
    of_models = {key for key in METRICS if key.startswith(("ce_", "kl", "later_", "outlier_", "fvu_"))}
    for name, found in metrics.items():
        assert set(found) == set(METRICS)
        undefined = (
            of_models | {"threshold_mode", "l0_untrimmed"} | ({"coefficient_final"} if name == "topk" else set())
        )
        assert {key for key, value in found.items() if value is None} == undefined
        assert found["tokens_evaluated"] == 2016, "2000 rounded up to whole sequences"


def test_the_true_latents_are_recovered_where_they_can_be(metrics: dict[str, dict[str, Any]]) -> None:
    assert metrics["large"]["mmcs_truth"] > 0.95
    assert metrics["topk"]["mmcs_truth"] > 0.95
    assert metrics["large"]["mmcs_truth_frequent"] > 0.95
    assert metrics["small"]["mmcs_truth"] < 0.75, "six latents cannot be 24"
    assert metrics["dense"]["mmcs_truth"] < metrics["large"]["mmcs_truth"] - 0.1, "nothing asks for sparsity"


def test_what_is_saved_says_that_there_is_no_model(made: Planned, metrics: dict[str, dict[str, Any]]) -> None:
    saved = json.loads((made.member_folder("large") / "cfg.json").read_text())
    assert (saved["d_in"], saved["d_sae"]) == (20, 48)
    assert (saved["metadata"]["model_name"], saved["metadata"]["hook_name"]) == ("toy", "toy")


def test_the_sweep_is_reported(made: Planned, metrics: dict[str, dict[str, Any]]) -> None:
    [cell] = write_report(made.folder.root, Console(file=io.StringIO()))
    assert len(cell["points"]) == len(MEMBERS)
    assert cell["frontiers"]["overall"]
    assert (Path(made.folder.root) / "report.html").is_file()
