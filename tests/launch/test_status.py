"""What `sae-sweep status` reads from a folder that others write."""

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from time import time

import pytest

from sae_sweep.cli import main
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.folder.checkpoints import Checkpoint, MemberRecord, StateFolder, write_state
from sae_sweep.folder.lock import held
from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.plan.groups import Plan, plan_sweep

LABELS = ("gated-l0_32-x16", "topk-l0_32-x16", "standard-l0_32-x16")


@cache
def configs() -> tuple[MemberConfig, ...]:
    return tuple(config_of([f"sae={sae}"]) for sae in ("gated", "topk", "standard"))


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Three members of 1,953 steps of 1,024 tokens; the third has diverged on the way."""
    made = SweepFolder(tmp_path / "outputs" / "sweep")
    plan = plan_sweep(configs())
    made.begin(plan)
    keep(made, plan, 400)
    made.mark(LABELS, "running", None)
    return made


def keep(folder: SweepFolder, plan: Plan, step: int) -> None:
    members = tuple(MemberRecord(m.identity, m.label, step, 1, True, None, 0, 0, 0, step) for m in plan.members)
    diverged = replace(members[2], step=100, failed="it diverged: its loss was nan at step 99")
    with StateFolder(folder.root).company("group", ["all"]).writing() as place:
        write_state(Checkpoint(place, 1, "", time() - 200, (*members[:2], diverged)))


def shown(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["status", str(folder.root)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_in_training(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with held(folder.root):
        steps = {LABELS[0]: 977, LABELS[1]: 976, LABELS[2]: 100}
        StateFolder(folder.root).beat({"group": "x", "steps": steps, "eta": 125.4, "doing": "epoch 0  block 7"})
        lines = shown(folder, capsys)
    assert f"pid {os.getpid()}, since " in lines[0]
    assert lines[0].endswith("epoch 0  block 7, ETA 2m05s, last checkpoint 3m20s ago")
    assert lines[1] == "3 members"
    assert [" ".join(line.split()) for line in lines[3:]] == [
        "gated-l0_32-x16 gated running 977/1953 50% 1M/2M step 400",
        "topk-l0_32-x16 topk running 976/1953 50% 999k/2M step 400",
        "standard-l0_32-x16 standard failed 100/1953 5% 102k/2M step 100 it diverged: its loss was nan at step 99",
    ]


def test_nobody_is_there_any_more(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    StateFolder(folder.root).beat({"group": "x", "steps": dict.fromkeys(LABELS, 900), "eta": 9.0, "doing": "block"})
    lines = shown(folder, capsys)
    assert lines[0] == f"{folder.root}: nobody trains here, last checkpoint 3m20s ago"
    assert (
        " ".join(lines[3].split())
        == "gated-l0_32-x16 gated interrupted 400/1953 20% 410k/2M step 400 its process is gone"
    )


def test_as_json(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.mark([LABELS[0]], "finished", None)
    folder.mark([LABELS[1]], "interrupted", "SIGTERM")
    folder.mark([LABELS[2]], "failed", "it diverged")
    assert main(["status", str(folder.root), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["folder"], status["holder"], status["eta"]) == (str(folder.root), None, None)
    assert status["checkpoint_age"] == pytest.approx(200, abs=30)
    finished, interrupted, failed = status["members"]
    assert finished == {
        "member": LABELS[0],
        "axes": {"sae": "gated"},
        "state": "finished",
        "step": 1953,
        "steps": 1953,
        "tokens": 1953 * 1024,
        "tokens_asked": 1953 * 1024,
        "checkpoint_step": None,
        "checkpoint_age": None,
        "reason": None,
    }
    assert (interrupted["state"], interrupted["reason"], interrupted["step"]) == ("interrupted", "SIGTERM", 400)
    assert (failed["state"], failed["reason"], failed["step"]) == ("failed", "it diverged", 100)


def test_a_sweep_that_has_only_been_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = SweepFolder(tmp_path / "sweep")
    made.begin(plan_sweep(configs()))
    lines = shown(made, capsys)
    assert lines[0] == f"{made.root}: nobody trains here"
    assert " ".join(lines[3].split()) == "gated-l0_32-x16 gated planned 0/1953 0% 0/2M -"


def test_what_varies_has_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But on a terminal that has no room for them."""
    grid = [f"sae=topk sae.k={k} site.layer={layer} seed={seed}" for k, layer, seed in ((8, 1, 0), (16, 1, 1))]
    made = SweepFolder(tmp_path / "sweep")
    made.begin(plan_sweep([config_of(words.split()) for words in grid]))
    lines = shown(made, capsys)
    assert lines[2].split() == ["member", "sparsity", "seed", "state", "steps", "tokens", "checkpoint", "reason"]
    assert lines[4].split()[:5] == ["topk-k_16-x16-s1", "k", "16", "1", "planned"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for columns, titles in ((60, False), (160, True)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert ("sparsity" in "\n".join(shown(made, capsys))) is titles


def test_a_sweep_file_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep.json").write_text("{")
    assert main(["status", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
