"""`hydra/launcher=gpus` with workers and nvidia-smi stood in for: who sees which GPU, how many run, how all end."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.host.signals import Interrupted
from sae_sweep.launch.clusters import gpus
from sae_sweep.launch.tasks import Task

GPUS = ("hydra/launcher=gpus", "sae=topk", "data.seed=0,1,2")
ALONE = "echo $CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER >> {seen}"
TOGETHER = ALONE + '\nfor i in $(seq 200); do [ "$(wc -l < {seen})" -ge 2 ] && exit 3; sleep 0.02; done; exit 4'
"""Ends well only where another one has begun meanwhile."""
STAYS = "trap 'echo told >> {seen}; exit 143' TERM\necho begun >> {seen}\nwhile true; do sleep 0.02; done"


@pytest.fixture
def host(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A machine with two GPUs, whose workers run a script; the file that these write to."""
    place = tmp_path_factory.mktemp("host")
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.02)

    def made(script: str) -> Path:
        for name, text in (("nvidia-smi", "echo 0\necho 1"), ("worker", script.format(seen=place / "seen"))):
            (place / name).write_text(f"#!/bin/sh\n{text}\n")
            (place / name).chmod(0o755)
        monkeypatch.setattr(gpus, "WORKER", (str(place / "worker"),))
        return place / "seen"

    return made


def states(program: Any) -> set[tuple[str, str | None]]:
    return {(entry["state"], entry["reason"]) for entry in program.sweep("sweep")["members"].values()}


def test_each_group_has_a_gpu_of_its_own_and_two_run_at_once(program: Any, host: Callable[[str], Path]) -> None:
    seen = host(TOGETHER)
    assert program(*GPUS) == 1
    assert program.training.groups == []
    lines = seen.read_text().splitlines()
    assert sorted(lines[:2]) == ["0 PCI_BUS_ID", "1 PCI_BUS_ID"]
    assert len(lines) == 3
    assert "sae-sweep: 3 groups, 2 at once, on GPUs 0, 1" in program.err
    assert "sae-sweep: 3 of 3 groups are over" in program.err
    assert all(state == "failed" and "ended as exit code 3" in str(reason) for state, reason in states(program))


def test_those_that_are_named_and_those_that_may_be_seen(
    program: Any, host: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = host(ALONE)
    assert program(*GPUS, "hydra.launcher.devices=[3]") == 1
    assert seen.read_text().split() == ["3", "PCI_BUS_ID"] * 3
    seen.unlink()
    monkeypatch.setenv(gpus.VISIBLE, "5,7,6")
    assert program(*GPUS, "name=other", "hydra.launcher.gpus=2", "launcher.devices=2") == 1
    assert seen.read_text().split() == ["5,7"] * 3  # of one place, the third GPU is nobody's


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra.launcher.gpus=3"], "hydra.launcher.gpus=3: there are 2 GPUs for all groups; ask for fewer"),
        (["hydra.launcher.gpus=0"], "hydra.launcher.gpus=0 must be at least 1"),
        (["launcher.devices=2"], "hydra.launcher.gpus=1, and launcher.devices=2 share a group; ask for as many"),
    ],
)
def test_what_cannot_be_is_one_line(
    program: Any, host: Callable[[str], Path], overrides: list[str], message: str
) -> None:
    host(ALONE)
    assert program(*GPUS, *overrides) == 2
    assert message in program.err
    assert program.written == []


def test_a_machine_without(program: Any, host: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    host(ALONE)
    monkeypatch.setattr(gpus, "LIST", ("no-such-program",))
    assert program(*GPUS) == 2
    assert program.err.startswith("sae-sweep: error: hydra/launcher=gpus: this machine shows no GPU; name them")
    assert program.written == []


def test_a_dry_run_says_where(program: Any) -> None:
    assert program(*GPUS, "dry_run=true") == 0
    assert "would be run by a process of its own on 1 GPU of this machine" in program.out


def test_who_is_told_to_stop_tells_the_workers(
    program: Any, host: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, told = host(STAYS), []

    def interrupting(self: gpus.Gpus) -> bool:
        if not told and seen.exists() and seen.read_text().count("begun") == 2:
            told.append(True)
            raise Interrupted(15)
        return False

    monkeypatch.setattr(gpus.Gpus, "_collect", interrupting)
    assert program(*GPUS) == 143
    assert sorted(seen.read_text().split()) == ["begun", "begun", "told", "told"]
    assert "SIGTERM: the workers were told to stop; the same command goes on from there" in program.err


def test_what_another_command_has_is_waited_for_and_not_begun(
    program: Any, host: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, waited = host(ALONE), list[str]()
    others = Task(Path("outputs/sweep"), "its-own")
    monkeypatch.setattr(gpus, "wait_for", lambda tasks, say: waited.extend(task.name for task in tasks))
    gpus.Gpus(gpus.GpuOptions(None, 1)).wait([others])
    assert waited == ["its-own"]
    assert not seen.exists()
