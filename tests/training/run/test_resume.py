"""Sweeps that are stopped where it is awkward, in this process: between, around and inside what a group does."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sae_sweep.activations.toy import ToyStream
from sae_sweep.config.files import config_of
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.toy import ToyEvaluator
from sae_sweep.folder.checkpoints import StateFolder
from sae_sweep.host.signals import Interrupted
from sae_sweep.launch.local import run_sweep
from sae_sweep.training.run import checkpointing as keeper
from sae_sweep.training.run.aside import Aside
from tests.e2e.kills import assert_same
from tests.training.run.toy_sweeps import (
    GATED,
    SHORT,
    STANDARD,
    TOPK,
    WILD,
    Alone,
    forget_config,
    sigterm,
    strike,
    sweep,
)

AWKWARD = {
    "in a harvest": (ToyStream, "block", 2),
    "while loading": (ToyStream, "block", 1),
    "in an evaluation on the way": (ToyEvaluator, "evaluate", 2),
    "in the last evaluation": (ToyEvaluator, "evaluate", 4),
    "in the last correction of l0": (ToyStream, "block", 10),
}


@pytest.mark.parametrize("where", AWKWARD)
def test_stopped_where_it_is_awkward(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Alone) -> None:
    members = (GATED, STANDARD, SHORT)
    expected = alone(*members)
    with monkeypatch.context() as patch:
        strike(patch, *AWKWARD[where], sigterm)
        with pytest.raises(Interrupted):
            sweep(tmp_path, *members)
    assert {o.state for o in sweep(tmp_path, *members)} == {"finished"}
    assert_same(forget_config(tmp_path / "sweep"), expected)


def test_stopped_with_checkpoints_that_are_written_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Alone
) -> None:
    """As on a GPU: one every few steps, while those after it are taken."""
    members = (GATED, STANDARD, SHORT)
    expected = alone(*members)
    steps, begun = iter(range(1, 1_000_000)), list[int]()
    real = Aside.begin

    def due(own: keeper.Keeper, tokens: int) -> bool:
        step = next(steps)
        if step in (30, 61):
            sigterm()
        return step % 7 == 0

    with monkeypatch.context() as patch:
        patch.setattr(keeper.Keeper, "due", due)
        patch.setattr(keeper, "pays", lambda members: True)
        patch.setattr(Aside, "begin", lambda own, write: (begun.append(1), real(own, write))[1])
        for _ in range(2):
            with pytest.raises(Interrupted):
                sweep(tmp_path, *members)
    assert len(begun) > 4
    assert {o.state for o in sweep(tmp_path, *members)} == {"finished"}
    assert_same(forget_config(tmp_path / "sweep"), expected)


def test_stopped_once_in_every_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Alone) -> None:
    members = (GATED, STANDARD, SHORT)
    expected = alone(*members)
    steps, stops = iter(range(1, 1_000_000)), 0
    real = keeper.Keeper.due

    def due(own: keeper.Keeper, tokens: int) -> bool:
        if next(steps) % 37 == 0:
            sigterm()
        return real(own, tokens)

    monkeypatch.setattr(keeper.Keeper, "due", due)
    while True:
        try:
            outcomes = sweep(tmp_path, *members)
        except Interrupted:
            stops += 1
        else:
            break
    assert stops >= 5
    assert {outcome.state for outcome in outcomes} == {"finished"}
    assert_same(forget_config(tmp_path / "sweep"), expected)


def interrupted(folder: Path, monkeypatch: pytest.MonkeyPatch, *members: tuple[str, ...], call: int = 5) -> None:
    with monkeypatch.context() as patch:
        strike(patch, ToyStream, "block", call, sigterm)
        with pytest.raises(Interrupted):
            sweep(folder, *members)


def blocks_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    read: list[int] = []
    real = ToyStream.block

    def block(stream: ToyStream, index: int) -> Any:
        read.append(index)
        return real(stream, index)

    monkeypatch.setattr(ToyStream, "block", block)
    return read


def test_a_new_member_begins_beside_those_that_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], alone: Alone
) -> None:
    expected = alone(GATED, TOPK)
    interrupted(tmp_path, monkeypatch, GATED, TOPK)
    read = blocks_read(monkeypatch)
    outcomes = sweep(tmp_path, STANDARD, TOPK, GATED)
    assert {outcome.state for outcome in outcomes} == {"finished"}
    assert capsys.readouterr().err.count("resuming at step ") == 1
    assert read.count(1) == 1  # of the new member alone
    for outcome in outcomes[1:]:
        for name in ("metrics.json", "metrics.jsonl", "sae_weights.safetensors"):
            assert (outcome.folder / name).read_bytes() == (expected / outcome.label / name).read_bytes()
    assert not (tmp_path / "sweep" / ".state").exists()


def test_a_part_of_the_members_goes_on_and_the_others_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path, monkeypatch, GATED, TOPK)
    assert [outcome.state for outcome in sweep(tmp_path, TOPK)] == ["finished"]
    assert len(StateFolder(tmp_path / "sweep").homes()) == 2
    read = blocks_read(monkeypatch)
    assert [outcome.state for outcome in sweep(tmp_path, GATED, TOPK)] == ["finished", "finished"]
    assert 1 not in read
    assert not (tmp_path / "sweep" / ".state").exists()


def test_a_group_that_breaks_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("the device is gone")

    often = ("training.checkpoint_tokens=500",)
    with monkeypatch.context() as patch:
        strike(patch, ToyStream, "block", 6, fail)
        (broken,) = sweep(tmp_path, TOPK, also=often)
    assert (broken.state, broken.reason) == ("failed", "RuntimeError: the device is gone")
    capsys.readouterr()
    assert sweep(tmp_path, TOPK, also=often)[0].state == "finished"
    assert "resuming at step " in capsys.readouterr().err


def test_what_was_trained_before_bad_data_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ConfigError("too many records are bad")

    with monkeypatch.context() as patch:
        strike(patch, ToyStream, "block", 6, fail)
        (broken,) = sweep(tmp_path, TOPK)
    assert (broken.state, broken.reason) == ("failed", "too many records are bad")
    capsys.readouterr()
    assert sweep(tmp_path, TOPK)[0].state == "finished"
    assert "resuming at step " in capsys.readouterr().err


def test_damage_to_both_checkpoints_begins_anew_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], alone: Alone
) -> None:
    expected = alone(GATED, TOPK)
    interrupted(tmp_path, monkeypatch, GATED, TOPK)
    interrupted(tmp_path, monkeypatch, GATED, TOPK, call=4)
    files = sorted((tmp_path / "sweep" / ".state").glob("*/*/*.safetensors"))
    assert len(files) == 4
    for file in files:
        file.write_bytes(file.read_bytes()[:-1])
    capsys.readouterr()
    sweep(tmp_path, GATED, TOPK)
    said = [line for line in capsys.readouterr().err.splitlines() if "checkpoint" in line]
    assert len(said) == 3
    assert "training begins anew" in said[2]
    assert_same(forget_config(tmp_path / "sweep"), expected)


def test_no_state_that_can_be_read_begins_anew_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], alone: Alone
) -> None:
    expected = alone(TOPK)
    interrupted(tmp_path, monkeypatch, TOPK)
    (state,) = (tmp_path / "sweep" / ".state").glob("*/*/state.json")
    state.write_text("{")
    capsys.readouterr()
    sweep(tmp_path, TOPK)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "checkpoint" in line]
    assert said == f"sae-sweep: no checkpoint in {state.parent.parent} can be read; its members begin anew"
    for name in ("metrics.json", "metrics.jsonl", "sae_weights.safetensors"):
        for file in expected.glob(f"*/{name}"):
            assert (tmp_path / "sweep" / file.parent.name / name).read_bytes() == file.read_bytes()


def test_a_wild_member_is_frozen_and_its_group_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], alone: Alone
) -> None:
    often = ("training.checkpoint_tokens=100",)
    expected = alone(TOPK, WILD, also=often)
    healthy, wild = sweep(tmp_path, TOPK, WILD, also=often)
    assert (healthy.state, wild.state) == ("finished", "failed")
    assert wild.reason is not None
    assert wild.reason.startswith("it diverged: its reconstruction loss was ")
    assert wild.reason.endswith(" at step 4")
    assert f"{wild.label}  {wild.reason}" in capsys.readouterr().err
    good = load_file(wild.folder / "last_good.safetensors")
    assert all(tensor.isfinite().all() for name, tensor in good.items() if name.startswith("parameters."))
    interrupted(tmp_path / "again", monkeypatch, TOPK, WILD)
    again = sweep(tmp_path / "again", TOPK, WILD)
    assert [outcome.reason for outcome in again] == [None, wild.reason]
    for name in ("metrics.json", "metrics.jsonl", "sae_weights.safetensors"):
        assert (again[0].folder / name).read_bytes() == (expected / healthy.label / name).read_bytes()


def test_parameters_that_are_no_numbers_are_noticed_where_no_loss_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflowing = ("sae=standard_april", "sae.l1=1", "training.lr=1e18", "training.lr_warmup_steps=0")
    healthy, broken = sweep(tmp_path, TOPK, overflowing, also=("tracking.log_every=1000", "training.tokens=2000"))
    assert healthy.state == "finished"
    assert broken.reason == "it diverged: its parameters were not finite at step 10"  # where its first block ends


def test_other_tokens_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama_folder: Path) -> None:
    text, contents = tmp_path / "text.txt", inspect.getsource(inspect)
    text.write_text(contents)
    overrides = (
        *("model=local", f"model.path={llama_folder}", "model.device=cpu", "data=text", f"data.path={text}"),
        *("data.context=16", "data.block_rows=32", "data.rows_per_forward=16", "site.layer=1", *TOPK, "sae.width=40"),
        *("training.batch_size=48", "training.tokens=2e3", "evaluation.tokens=320", "tracking=none"),
    )
    made = config_of([*overrides, f"output_dir={tmp_path}"])
    with monkeypatch.context() as patch:
        real, steps = keeper.Keeper.due, iter(range(1000))
        patch.setattr(keeper.Keeper, "due", lambda own, t: (sigterm() if next(steps) == 15 else None, real(own, t))[1])
        with pytest.raises(Interrupted):
            run_sweep([made])
    text.write_text(contents.swapcase())
    with pytest.raises(ConfigError, match=r"data\.path=.*text\.txt has other content of the same size since "):
        run_sweep([made])
    text.write_text(contents)
    assert run_sweep([made])[0].state == "finished"


def test_no_random_state_is_needed(tmp_path: Path, alone: Alone) -> None:
    """Everything random is seeded by a seed and a place: torch's own generators change nothing."""
    expected = alone(GATED, ("sae=matryoshka", "sae.k=3", "sae.prefixes=sampled"))
    torch.manual_seed(12345)
    sweep(tmp_path, GATED, ("sae=matryoshka", "sae.k=3", "sae.prefixes=sampled"))
    assert_same(forget_config(tmp_path / "sweep"), expected)


def test_keys_of_a_whole_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.checkpoint_minutes=10,5: a whole sweep has one"):
        sweep(tmp_path, TOPK, (*GATED, "training.checkpoint_minutes=5"))
    with pytest.raises(ConfigError, match=r"training\.checkpoint_minutes=-1 must be at least 0"):
        sweep(tmp_path, (*TOPK, "training.checkpoint_minutes=-1"))
    with pytest.raises(ConfigError, match=r"training\.checkpoint_tokens=0 must be at least 1"):
        sweep(tmp_path, (*TOPK, "training.checkpoint_tokens=0"))
