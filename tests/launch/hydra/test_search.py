"""`hydra/sweeper=optuna`: what is proposed, in batches, and judged, with training stood in for."""

from typing import Any

import pytest

SEARCH = (
    *("hydra/sweeper=optuna", "sae=topk", "sae.l0=int(interval(4,64))", "sae.width=128"),
    *("hydra.sweeper.trials=6", "hydra.sweeper.batch=3"),
)


def test_each_batch_is_one_pass(program: Any) -> None:
    assert program(*SEARCH, "training.lr=tag(log, interval(1e-4,1e-2))") == 0
    assert [len(group) for group in program.training.groups] == [3, 3]
    configs = [entry["config"] for entry in program.sweep("sweep")["members"].values()]
    assert len(configs) == 6
    assert all(4 <= config["sae"]["l0"] <= 64 and config["sae"]["l0"] == int(config["sae"]["l0"]) for config in configs)
    assert all(1e-4 <= config["training"]["lr"] <= 1e-2 and config["sae"]["width"] == 128 for config in configs)
    assert "sae-sweep: optuna: 6 of 6 trials" in program.err


def test_the_same_command_proposes_the_same_and_trains_nothing(program: Any) -> None:
    assert program(*SEARCH) == 0
    before = program.training.labels
    assert program(*SEARCH) == 0
    assert program.training.labels == before
    assert program(*SEARCH, "hydra.sweeper.trials=9") == 0
    assert len(program.sweep("sweep")["members"]) > len(before) - 3
    assert program(*SEARCH, "hydra.sweeper.seed=1", "name=other") == 0
    assert sorted(program.sweep("other")["members"]) != sorted(before)


def test_results_lead_the_proposals(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one metric to minimise, the later half of many proposals lies lower than the first."""
    from sae_sweep.folder.files import write_json_atomic
    from sae_sweep.folder.names import METRICS, WEIGHTS
    from sae_sweep.folder.sweep import MemberResult

    def train(label: str, folder: Any) -> MemberResult:
        metrics = {"l0": float(label.split("_")[1].split("-")[0])}
        (folder.member_folder(label) / WEIGHTS).write_bytes(b"")
        write_json_atomic(folder.member_folder(label) / METRICS, metrics)
        return MemberResult(metrics, None)

    monkeypatch.setattr(program.training, "_train", train)
    one = ("hydra.sweeper.metrics=[l0]", "hydra.sweeper.directions=[minimize]", "hydra.sweeper.trials=40")
    assert program(*SEARCH, "sae.l0=int(interval(1,120))", *one, "hydra.sweeper.batch=5") == 0
    found = [int(label.split("_")[1].split("-")[0]) for label in program.training.labels]
    half = len(found) // 2
    assert sum(found[half:]) / len(found[half:]) < sum(found[:half]) / half


def test_a_failed_member_is_no_result_and_the_search_goes_on(program: Any) -> None:
    assert program(*SEARCH, "dry_run=members") == 0
    (label, *_) = [word for word in program.out.split() if word.startswith("topk-l0_")]
    program.training.failing = {label: "diverged"}
    assert program(*SEARCH) == 1
    assert len(program.training.groups[0]) == 3
    assert "6 of 6 trials" in program.err


@pytest.mark.parametrize("chosen", [[], ["hydra/sweeper=optuna"]])
def test_a_dry_run_prints_the_first_batch(chosen: list[str], program: Any) -> None:
    assert program("+experiment=search", *chosen, "dry_run=true") == 0
    assert "outputs/search: 8 members in 1 group of one pass each" in program.out
    assert program.written == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.sweeper.metrics=l0", "hydra.sweeper.metrics=l0 is not a list of metrics"),
        ("hydra.sweeper.directions=[down,up]", "is not one of minimize, maximize for each metric"),
        ("hydra.sweeper.directions=[minimize]", "is not one of minimize, maximize for each metric"),
        ("hydra.sweeper.trials=0", "hydra.sweeper.trials=0 is not a whole number of at least 1"),
        ("hydra.sweeper.batch=two", "hydra.sweeper.batch=two is not a whole number"),
        ("hydra.sweeper.seed=-1", "hydra.sweeper.seed=-1 is not a whole number of at least 0"),
        ("sae.l0=8", "hydra.sweeper.params: nothing to search"),
    ],
)
def test_what_cannot_be_is_one_line(program: Any, override: str, message: str) -> None:
    assert program(*SEARCH, override) == 2
    assert message in program.err
    assert program.err.count("\n") == 1
    assert program.written == []


def test_a_metric_that_is_not_there_is_one_line(program: Any) -> None:
    assert program(*SEARCH, "hydra.sweeper.metrics=[l0,nope]") == 2
    assert "hydra.sweeper.metrics: nope is not a metric that topk-l0_" in program.err
