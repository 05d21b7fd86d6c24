"""Milestones: which steps they are, that they change no bit of anything else, and that no interruption loses one."""

import json
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from sae_sweep.activations.toy import ToyStream
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.toy import ToyEvaluator
from sae_sweep.host.signals import Interrupted
from sae_sweep.interop import load_sae
from sae_sweep.launch.local import run_sweep
from sae_sweep.plan.members import member_identity
from sae_sweep.plan.milestones import Milestone, resolve_milestones
from sae_sweep.training.run import judging
from tests.e2e.kills import assert_same, written
from tests.training.fabricate import member_configuration
from tests.training.run.toy_sweeps import (
    GATED,
    SHORT,
    STANDARD,
    TOPK,
    Alone,
    config,
    forget_config,
    sigterm,
    strike,
    sweep,
)

FILES = {"cfg.json", "sae_weights.safetensors", "sparsity.safetensors", "metrics.json"}
ASKED = ("training.milestones=[700,100,1500]",)
"""Steps of 48 rows, 10 to a block: step 3 of block 0, and the middle of blocks 1 and 3. SHORT ends at the last."""
MEMBERS = (GATED, STANDARD, SHORT)


def milestones(asked: Any, batch: int, total: int) -> tuple[Milestone, ...]:
    training = member_configuration("topk").training
    return resolve_milestones(replace(training, milestones=asked, batch_size=batch), total)


def test_a_milestone_is_the_first_step_that_makes_so_many_tokens() -> None:
    assert milestones([1, 48, 49, 96, 480, 500], 48, 10) == (
        *(Milestone(1, 1), Milestone(48, 1), Milestone(49, 2), Milestone(96, 2), Milestone(480, 10)),
        Milestone(500, 10),  # the last whole step of 500 tokens
    )
    assert milestones([96, 48, 96], 48, 10) == (Milestone(48, 1), Milestone(96, 2))
    assert milestones(None, 48, 10) == ()


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.integers(1, 999), st.integers(1, 4096), st.integers(1, 10**6))
def test_log_spaced_milestones(count: int, batch: int, total: int) -> None:
    found = milestones(f"log:{count}", batch, total)
    steps = [milestone.step for milestone in found]
    assert steps[:1] == ([1] if total > 1 else [])
    assert steps == sorted(set(steps))
    assert len(steps) <= count
    assert all(milestone.tokens == milestone.step * batch for milestone in found)
    assert all(step < total for step in steps)
    if len(steps) == count:
        for i, step in enumerate(steps):
            assert abs(step - total ** (i / count)) <= 0.5
            assert log(step) == pytest.approx(i / count * log(total), abs=0.5)


def test_a_run_with_milestones_is_the_run_without(tmp_path: Path, alone: Alone) -> None:
    expected = alone(*MEMBERS)
    outcomes = sweep(tmp_path, *MEMBERS, also=ASKED)
    names = {name for name in written(forget_config(tmp_path / "sweep")) if "/milestones/" not in name}
    assert names == set(written(expected))
    for name in names:
        assert (tmp_path / "sweep" / name).read_bytes() == (expected / name).read_bytes(), name
    for outcome in outcomes:
        kept = {folder.name: folder for folder in (outcome.folder / "milestones").iterdir()}
        assert kept.keys() == {"100", "700", "1500"}
        for tokens, folder in kept.items():
            assert {file.name for file in folder.iterdir()} == FILES
            metrics = json.loads((folder / "metrics.json").read_text())
            steps = min(-(-int(tokens) // 48), 1500 // 48 if outcome.label.endswith("k_5-w40") else 10**9)
            assert metrics["tokens_trained"] == 48 * steps
            assert outcome.metrics is not None
            assert metrics.keys() == outcome.metrics.keys()
            assert metrics["tokens_evaluated"] == outcome.metrics["tokens_evaluated"]
            assert json.loads((folder / "cfg.json").read_text())["metadata"]["training_tokens"] == 48 * steps
            load_sae(folder)


def test_a_milestone_is_what_a_run_of_that_length_would_be(tmp_path: Path) -> None:
    """With lengths of schedules that do not follow from the run's."""
    fixed = ("training.lr_warmup_steps=0", "training.lr_decay_fraction=0", "evaluation.every=null", *TOPK)
    fixed = (*fixed, "sae.dead_after_tokens=96")
    (long,) = sweep(tmp_path / "long", fixed, also=("training.milestones=[700]",))
    (short,) = sweep(tmp_path / "short", fixed, also=("training.tokens=720",))
    own, other = (
        load_file(folder / "sae_weights.safetensors") for folder in (long.folder / "milestones/700", short.folder)
    )
    for name, tensor in own.items():
        assert tensor.equal(other[name]), name
    kept = json.loads((long.folder / "milestones/700/metrics.json").read_text())
    ended = short.metrics
    assert ended is not None
    assert {key for key in kept if kept[key] != ended[key]} <= {"dead_window_tokens", "dead_fraction"}
    assert (kept["tokens_trained"], kept["fvu"]) == (720, ended["fvu"])


def test_a_milestone_in_a_group_is_one_alone(tmp_path: Path, alone: Alone) -> None:
    together = alone(*MEMBERS, also=ASKED)
    for place, own in enumerate(MEMBERS):
        (by_itself,) = sweep(tmp_path, own, also=(*ASKED, f"name=apart{place}"))
        assert_same(together / by_itself.label / "milestones", by_itself.folder / "milestones")


# The first member that is written at a milestone, and so on.
AWKWARD = {
    "in the block of a milestone": (ToyStream, "block", 2),
    "while a milestone is judged": (ToyEvaluator, "evaluate", 2),
    "while the first milestone is judged": (ToyEvaluator, "evaluate", 1),
    "in the evaluation after it": (ToyEvaluator, "evaluate", 5),
    "in the last evaluation": (ToyEvaluator, "evaluate", 7),
}


@pytest.mark.parametrize("where", AWKWARD)
def test_stopped_around_a_milestone(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Alone) -> None:
    expected = alone(*MEMBERS, also=ASKED)
    with monkeypatch.context() as patch:
        strike(patch, *AWKWARD[where], sigterm)
        with pytest.raises(Interrupted):
            sweep(tmp_path, *MEMBERS, also=ASKED)
    sweep(tmp_path, *MEMBERS, also=ASKED)
    assert_same(forget_config(tmp_path / "sweep"), expected)


@pytest.mark.parametrize(
    ("file", "often"),
    [
        pytest.param(file, often, marks=() if (place + turn) % 2 == 0 and place not in (2, 3) else pytest.mark.evidence)
        for place, file in enumerate((1, 2, 5, 7, 12))
        for turn, often in enumerate(("training.checkpoint_tokens=null", "training.checkpoint_minutes=0"))
    ],
)
def test_killed_between_snapshot_and_files(
    file: int, often: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Alone
) -> None:
    """After a member was written, before its metrics were, or before the next one: nothing tidies up."""

    class Killed(BaseException):
        pass

    def killed() -> None:
        raise Killed

    also = (*ASKED, often, "evaluation.every=null")
    expected = alone(*MEMBERS, also=also)
    with monkeypatch.context() as patch:
        strike(patch, judging, "write_json_atomic", file, killed)  # type: ignore[arg-type]
        with pytest.raises(Killed):
            sweep(tmp_path, *MEMBERS, also=also)
    sweep(tmp_path, *MEMBERS, also=also)
    assert_same(forget_config(tmp_path / "sweep"), expected)


def test_a_plan_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path, GATED, TOPK, also=(*ASKED, "dry_run=true"))
    said = capsys.readouterr().out
    assert said.count("milestones at 3, 15, 32") == 2
    numbers = (2 * 24 * 40 + 3 * 40 + 24) + (2 * 24 * 40 + 40 + 24)
    assert f"milestones: 6 snapshots, {3 * 4 * numbers / 1000:.3g} kB; each judged on 320 held-out tokens" in said
    assert list(tmp_path.iterdir()) == []


def test_milestones_that_members_are_past_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = sweep(tmp_path, GATED, TOPK)
    capsys.readouterr()
    for also in (("dry_run=true",), ()):
        sweep(tmp_path, GATED, TOPK, also=(*ASKED, *also))
        (said,) = [line for line in capsys.readouterr().err.splitlines() if "training.milestones" in line]
        assert said == (
            f"sae-sweep: training.milestones: {outcomes[0].label} and 1 more are past 100, 700, 1,500 tokens and keep"
            " no snapshot of that; it is taken while a member trains, so give another name= to have it"
        )
    assert not list((tmp_path / "sweep").glob("*/milestones"))


def test_milestones_behind_a_checkpoint_are_said_and_those_ahead_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        strike(patch, ToyStream, "block", 4, sigterm)
        with pytest.raises(Interrupted):
            sweep(tmp_path, TOPK)
    capsys.readouterr()
    (outcome,) = sweep(tmp_path, TOPK, also=ASKED)
    said = [line for line in capsys.readouterr().err.splitlines() if "training.milestones" in line]
    assert len(said) == 1
    assert "topk-k_3-w40 are past 100, 700 tokens" in said[0]
    assert [folder.name for folder in (outcome.folder / "milestones").iterdir()] == ["1500"]


def test_a_member_that_begins_anew_keeps_nothing_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outcome,) = sweep(tmp_path, TOPK, also=ASKED)
    (outcome.folder / "metrics.json").unlink()
    sweep(tmp_path, TOPK, also=("training.milestones=[200]",))
    assert [folder.name for folder in (outcome.folder / "milestones").iterdir()] == ["200"]


def test_a_member_that_is_no_number_has_no_snapshot(tmp_path: Path) -> None:
    overflowing = ("sae=standard_april", "sae.l1=1", "training.lr=1e18", "training.lr_warmup_steps=0")
    healthy, wild = sweep(tmp_path, TOPK, overflowing, also=(*ASKED, "tracking.log_every=1000"))
    assert (healthy.state, wild.state) == ("finished", "failed")
    assert {folder.name for folder in (healthy.folder / "milestones").iterdir()} == {"100", "700", "1500"}
    assert not (wild.folder / "milestones").exists()
    assert "milestone 100 is not kept: its " in (wild.folder / "log.txt").read_text()


def test_milestones_are_no_part_of_a_member_and_one_for_a_sweep(tmp_path: Path) -> None:
    assert member_identity(config(*TOPK)) == member_identity(config(*TOPK, "training.milestones=log:3"))
    with pytest.raises(ConfigError, match=r"training\.milestones=null,log:3: a whole sweep has one"):
        run_sweep([config(f"output_dir={tmp_path}", *own) for own in (TOPK, (*TOPK, "training.milestones=log:3"))])


@pytest.mark.parametrize("value", ["5", "fast", "log:0", "log:x", "log:1000", "[]", "[1.5]", "[a]", "true", "[true]"])
def test_what_is_no_milestone(value: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.milestones=.* is not a list of token counts like \[1e5,1e6\]"):
        config(*TOPK, f"training.milestones={value}")


@pytest.mark.parametrize(
    ("value", "said"), [("[0]", "0 must be"), ("[100,4001]", "4001 must be"), ("[-1]", "-1 must be")]
)
def test_milestones_beyond_the_run(value: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"training\.milestones=.*: {said} at least 1 and at most training.tokens=4000"
    ):
        sweep(tmp_path, (*TOPK, f"training.milestones={value}"))
    assert list(tmp_path.iterdir()) == []
