"""A command line that runs in this process, with training and reporting stood in for."""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sae_sweep.cli import main
from sae_sweep.config.schema import TrackingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.folder.names import METRICS, WEIGHTS
from sae_sweep.folder.sweep import MemberResult, SweepFolder
from sae_sweep.plan.groups import Group
from sae_sweep.plan.placement import Pass, Wave, plan_passes
from sae_sweep.tracking.runs import TrackedRun


class Training:
    """Stands in for `open_group`: every member finishes at once, but for those it is told to fail."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.failing: dict[str, str] = {}
        self.raises: BaseException | None = None
        self.refusing: dict[int, str] = {}
        """Why a group cannot be opened, by its data.seed."""
        self.unplanned: dict[int, str] = {}
        """Why it cannot be planned on this machine."""
        self.reports: list[Path] = []
        self.summaries: list[str] = []
        """Names of the sweeps whose runs came to an end."""

    def passes(self, group: Group) -> list[Pass]:
        _refuse(group, self.unplanned)
        return plan_passes(group, None, None)

    def open_group(self, group: Group, waves: Sequence[Wave] = (), progress: object = None) -> SimpleNamespace:
        _refuse(group, self.refusing)
        return SimpleNamespace(run=lambda folder, stop, sweep: self._run(group, folder))

    def _run(self, group: Group, folder: SweepFolder) -> dict[str, MemberResult]:
        self.groups.append([member.label for member in group.members])
        if self.raises is not None:
            raise self.raises
        return {member.label: self._train(member.label, folder) for member in group.members}

    def _train(self, label: str, folder: SweepFolder) -> MemberResult:
        if label in self.failing:
            return MemberResult(None, self.failing[label])
        metrics: dict[str, Any] = {"l0": float(len(label)), "ce_recovered": 0.9}
        save_file({"W_dec": np.zeros((1, 1), dtype=np.float32)}, folder.member_folder(label) / WEIGHTS)
        write_json_atomic(folder.member_folder(label) / METRICS, metrics)
        return MemberResult(metrics, None)

    def follow(self, root: Path, run: TrackedRun, config: TrackingConfig, tables: object) -> SimpleNamespace:
        """Stands in for the run of a sweep."""
        ended = partial(self.summaries.append, run.name)
        return SimpleNamespace(begin=lambda: None, end=lambda *told: ended(), close=lambda: None)

    def report(self, folder: Path) -> list[dict[str, Any]]:
        """Stands in for the report."""
        self.reports.append(folder)
        return []

    @property
    def labels(self) -> list[str]:
        """Of every member that was trained, over all calls."""
        return [label for group in self.groups for label in group]


def _refuse(group: Group, reasons: Mapping[int, str]) -> None:
    if (seed := group.members[0].config.data.seed) in reasons:
        raise ConfigError(reasons[seed])


class Program:
    """`sae-sweep` run in an empty folder."""

    def __init__(self, folder: Path, training: Training, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.training, self._capsys = folder, training, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        code = main(arguments)
        self.out, said = self._capsys.readouterr()
        self.err = said.removeprefix("sweep: loading torch\n")  # the first words of each that trains
        return code

    @property
    def written(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    def sweep(self, name: str) -> dict[str, Any]:
        entries: dict[str, Any] = json.loads((self.folder / "outputs" / name / "sweep.json").read_text())
        return entries


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Training:
    stand_in = Training()
    group, report = ModuleType("group"), ModuleType("report")
    vars(group)["open_group"] = stand_in.open_group
    vars(group)["passes"] = stand_in.passes
    vars(report)["write_report"] = stand_in.report
    monkeypatch.setitem(sys.modules, "sae_sweep.training.run.opening", group)
    monkeypatch.setitem(sys.modules, "sae_sweep.reporting.report", report)
    sweeps = ModuleType("sweep_run")
    vars(sweeps)["SweepRun"] = stand_in.follow
    monkeypatch.setitem(sys.modules, "sae_sweep.tracking.sweep_run", sweeps)
    return stand_in


@pytest.fixture
def program(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sae_sweep.launch.sweep.measured_flops", lambda model: None)
    return Program(tmp_path, training, capsys)
