"""Whole commands, from the command line to the sweep folder, with training stood in for."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from sae_sweep.folder.lock import held
from sae_sweep.host.signals import Interrupted


def test_one_member(program: Any) -> None:
    assert program("sae=topk", "sae.k=8") == 0
    assert program.training.groups == [["topk-k_8-x16"]]
    entry = program.sweep("sweep")["members"]["topk-k_8-x16"]
    assert entry["state"] == "finished"
    assert program.training.reports == [Path("outputs/sweep")]


def test_nothing_but_the_sweep_is_written(program: Any) -> None:
    assert program("sae=topk,gated") == 0
    members = ("gated-l0_32-x16", "topk-l0_32-x16")
    files = ("", "/config.yaml", "/metrics.json", "/sae_weights.safetensors")
    inside = [f"outputs/sweep/{member}{file}" for member in members for file in files]
    assert program.written == sorted(["outputs", "outputs/sweep", "outputs/sweep/sweep.json", *inside])


def test_an_experiment_is_the_union_of_its_grids(program: Any) -> None:
    assert program("+experiment=demo") == 0
    (labels,) = program.training.groups
    assert len(labels) == 20
    assert [label for label in labels if label.startswith("topk")] == [f"topk-k_{k}-x8" for k in (6, 16, 40, 96)]
    assert sum(label.startswith("standard_april-l0_") for label in labels) == 4
    assert len(program.sweep("demo")["plan"][0]["banks"]) == 6


def test_a_value_of_one_architecture_goes_to_its_members_only(program: Any) -> None:
    assert program("experiment=demo", "sae.k=128") == 0
    assert [label for label in program.training.labels if label.startswith("topk")] == ["topk-k_128-x8"]
    assert len(program.training.labels) == 15  # controls take k too


def test_l0_for_every_architecture(program: Any) -> None:
    assert program("sae=gated,topk", "sae.l0=16,32") == 0
    assert sorted(program.training.labels) == ["gated-l0_16-x16", "gated-l0_32-x16", "topk-l0_16-x16", "topk-l0_32-x16"]


def test_gated_gemma_at_a_small_model(program: Any, tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 16}
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({**sizes, "intermediate_size": 80, "vocab_size": 99}))
    (model / "model.safetensors").touch()
    (tmp_path / "corpus.txt").write_text("text")
    overrides = (f"model.path={model}", "sae.width=64", "training.tokens=1e5", "data=text", "site.layer=1")
    assert program("experiment=gated_gemma", *overrides, f"data.path={tmp_path}/corpus.txt") == 0
    assert len(program.training.labels) == 13
    entry = program.sweep("gated_gemma")["members"]["standard-l1_7e-5-w64-lr_1e-3"]["config"]
    assert (entry["training"]["lr"], entry["sae"]["coefficient_unit"]) == (1e-3, "mean_d_norm")
    assert (entry["data"]["kind"], entry["data"]["context"]) == ("text", 1024)


def test_what_is_finished_is_not_trained_again(program: Any) -> None:
    assert program("sae=topk", "sae.k=8") == 0
    assert program("sae=topk", "sae.k=8,16") == 0
    assert program.training.groups == [["topk-k_8-x16"], ["topk-k_16-x16"]]
    assert program("sae=topk", "sae.k=8,16") == 0
    assert len(program.training.groups) == 2
    assert len(program.training.reports) == 3


def test_a_failed_member_does_not_stop_the_others_and_is_trained_again(program: Any) -> None:
    program.training.failing = {"topk-k_8-x16": "diverged at step 3"}
    assert program("sae=topk", "sae.k=8,16") == 1
    assert program.err.splitlines() == [
        "1 of 2 members failed",
        "  member        reason",
        "  topk-k_8-x16  diverged at step 3",
    ]
    states = {label: (entry["state"], entry["reason"]) for label, entry in program.sweep("sweep")["members"].items()}
    assert states == {"topk-k_8-x16": ("failed", "diverged at step 3"), "topk-k_16-x16": ("finished", None)}
    program.training.failing = {}
    assert program("sae=topk", "sae.k=8,16") == 0
    assert program.training.groups[-1] == ["topk-k_8-x16"]


def test_a_group_that_breaks_shows_its_traceback_and_the_others_go_on(program: Any) -> None:
    program.training.raises = RuntimeError("out of\nmemory")
    assert program("data.seed=0,1") == 1
    assert len(program.training.groups) == 2
    assert "Traceback" in program.err
    assert "RuntimeError: out of memory" in program.err


def test_a_bug_outside_the_groups_is_a_line_that_names_the_file_with_its_traceback(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sae_sweep.launch.sweep.plan_sweep", lambda configs: 1 // 0)
    assert program("seed=0") == 70
    told = re.fullmatch(r"sae-sweep: error: a defect of sae-sweep \((.*)\); please report it with (\S+)\n", program.err)
    assert told is not None
    assert told[1] == "ZeroDivisionError: integer division or modulo by zero"
    assert "in launch\n    plan = plan_sweep(configs)\n" in Path(told[2]).read_text()
    Path(told[2]).unlink()


def test_a_sweep_has_one_summary_run_and_none_when_nothing_was_trained(program: Any) -> None:
    assert program("sae=topk", "sae.k=4,8") == 0
    assert program.training.summaries == ["sweep"]
    assert program("sae=topk", "sae.k=4,8") == 0
    assert len(program.training.summaries) == 1


def test_where_no_group_can_be_opened_nothing_is_written(program: Any) -> None:
    program.training.refusing = {0: "model.path=x: no such model", 1: "data.bos=always: the tokenizer has no BOS"}
    assert program("data.seed=1,0") == 2
    assert program.err.splitlines()[-1] == "sae-sweep: error: data.bos=always: the tokenizer has no BOS"
    assert program.written == []


@pytest.mark.parametrize("seeds", ["0,1", "1,0"])
def test_a_group_that_cannot_be_opened_fails_and_the_others_go_on_whichever_is_first(program: Any, seeds: str) -> None:
    program.training.refusing = {0: "data.bos=always: the tokenizer has no BOS"}
    assert program(f"data.seed={seeds}", "sae=topk") == 1
    (line,) = [line for line in program.err.splitlines() if line.startswith("sae-sweep: ")]
    assert line.endswith(" cannot be trained: data.bos=always: the tokenizer has no BOS")
    members = program.sweep("sweep")["members"].values()
    assert {entry["config"]["data"]["seed"]: (entry["state"], entry["reason"]) for entry in members} == {
        0: ("failed", "data.bos=always: the tokenizer has no BOS"),
        1: ("finished", None),
    }
    program.training.refusing = {}
    assert program(f"data.seed={seeds}", "sae=topk") == 0


@pytest.mark.parametrize("seeds", ["0,1", "1,0"])
def test_what_shows_before_anything_is_loaded_is_told_of_every_group_first(program: Any, seeds: str) -> None:
    program.training.unplanned = {0: "launcher.memory_gb=1: topk alone needs 2 GB"}
    assert program(f"data.seed={seeds}", "sae=topk") == 2
    assert program.err == "sae-sweep: error: launcher.memory_gb=1: topk alone needs 2 GB\n"
    assert program.written == []
    assert program.training.groups == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_an_interrupt_is_quiet_and_leaves_members_to_train(program: Any, number: signal.Signals) -> None:
    program.training.raises = Interrupted(number)
    assert program("seed=0") == 128 + number
    assert program.err == ""
    (entry,) = program.sweep("sweep")["members"].values()
    assert (entry["state"], entry["reason"]) == ("interrupted", number.name)
    program.training.raises = None
    assert program("seed=0") == 0


def test_a_disk_that_takes_no_more_is_one_line(program: Any) -> None:
    program.training.raises = OSError(errno.ENOSPC, "No space left on device", "outputs/sweep/some.file")
    assert program("seed=0") == 1
    assert program.err.startswith("sae-sweep: error: outputs/sweep/some.file: No space left on device; ")
    assert program.err.count("\n") == 1


def test_what_the_disk_said_to_safetensors_is_one_line_too(program: Any) -> None:
    program.training.raises = SafetensorError("Error while serializing: I/O error: File too large (os error 27)")
    assert program("seed=0") == 1
    assert program.err.startswith("sae-sweep: error: File too large; ")


def test_two_processes_in_one_folder(program: Any) -> None:
    assert program("seed=0") == 0
    with held(Path("outputs/sweep")):
        code = "import sys; from sae_sweep.cli import main; sys.exit(main(['seed=0,1']))"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert second.returncode == 2
    assert second.stderr.startswith("sae-sweep: error: outputs/sweep: another process trains here (host ")
    assert f"pid {os.getpid()}, since 2" in second.stderr
    assert second.stderr.count("\n") == 1


def test_another_config_under_the_name_is_refused_and_nothing_is_written(program: Any) -> None:
    assert program("sae=topk") == 0
    before = program.written
    assert program("sae=topk,gated", "training.tokens=3e6") == 2
    assert "training.tokens: 2e+06 -> 3e+06" in program.err
    assert program.written == before
    assert len(program.training.groups) == 1


def test_one_path_with_and_without_multirun_and_in_run_mode(program: Any) -> None:
    for flags in (["-m"], ["--multirun"], ["--run"], ["hydra.mode=RUN"], []):
        assert program("sae=topk", "sae.k=8", "dry_run=true", *flags) == 0, flags
        assert "1 member in 1 group" in program.out
    assert program("sae=topk", "sae.k=8", "hydra.mode=RUN") == 0
    assert program.sweep("sweep")["members"]["topk-k_8-x16"]["state"] == "finished"
    program.training.failing = {"topk-k_9-x16": "diverged"}
    assert program("sae=topk", "sae.k=9", "hydra.mode=RUN") == 1


def test_hydras_own_sweeper_comes_to_the_same(program: Any) -> None:
    assert program("hydra/sweeper=basic", "sae=topk", "sae.k=8,16") == 0
    assert sorted(program.training.labels) == ["topk-k_16-x16", "topk-k_8-x16"]


def test_params_and_grids_from_a_folder_of_ones_own(program: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    text = "# @package _global_\nname: mine\nhydra:\n  sweeper:\n    params:\n      sae: topk\n      sae.k: 8,16\n"
    (mine / "mine.yaml").write_text(text)
    assert program("--config-dir", str(tmp_path / "mine"), "experiment=mine", "dry_run=true") == 0
    assert "outputs/mine: 2 members" in program.out


def test_many_members_compose_a_choice_once(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    composed = []
    original = ConfigLoaderImpl.load_sweep_config

    def counted(self: ConfigLoaderImpl, master: object, overrides: list[str]) -> object:
        composed.append(overrides)
        return original(self, master, overrides)  # type: ignore[arg-type]

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    assert program("sae=gated,topk", "sae.l0=16,32", "seed=range(0,20)", "dry_run=true") == 0
    assert "80 members" in program.out
    assert composed == [["sae=gated"], ["sae=topk"]]
