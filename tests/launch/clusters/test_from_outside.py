"""A cluster of another package: found by its entry point, chosen by a config file, and never known by name here."""

import json
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.host import kinds
from sae_sweep.launch.tasks import read_tasks

MODULE = """
import json
from pathlib import Path
from sae_sweep.errors import ConfigError
from sae_sweep.launch.clusters import Verdict
from sae_sweep.launch.standing import wait_for
from sae_sweep.launch.worker import train_task

BOARD = Path("board.json")

def opened(options, name):
    if not isinstance(options["beds"], int):
        raise ConfigError(f"hydra.launcher.beds={options['beds']} is not a whole number")
    return Farm(options["beds"], options["wait"])

def words(job):
    return f"bed {job}"

def ask(jobs):
    board = json.loads(BOARD.read_text())
    return {job: Verdict(*board[job]) for job in jobs}

def cancel(jobs):
    BOARD.write_text(json.dumps(json.loads(BOARD.read_text()) | {job: ("cancelled", "dug up") for job in jobs}))

class Farm:
    gpus = 0

    def __init__(self, beds, waits):
        self.beds, self.waits = beds, waits

    def place(self, number):
        return f"would grow in bed {number} of {self.beds}"

    def check(self):
        if self.beds < 1:
            raise ConfigError("hydra.launcher.beds: no bed is free")

    def submit(self, tasks):
        for number, task in enumerate(tasks):
            task.write_job("farm", str(number), None)
        BOARD.write_text(json.dumps({str(n): ("waits", "sown", "winter") for n in range(len(tasks))}))

    def wait(self, tasks):
        for task in tasks:
            train_task(task.folder)
        BOARD.write_text(json.dumps({task.job: ("over", "grown") for task in tasks}))
        wait_for(tasks, print)
"""


@pytest.fixture
def farm(program: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command with a launcher `farm`: an installed package, and a config file of one's own."""
    site: Path = tmp_path_factory.mktemp("site")
    (site / "outside_farm.py").write_text(MODULE)
    information = site / "outside_farm-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: outside_farm\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[sae_sweep.clusters]\nfarm = outside_farm\n")
    launcher = site / "configs" / "hydra" / "launcher" / "farm.yaml"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(
        "_target_: hydra_plugins.sae_sweep.SweepLauncher\ncluster: farm\nbeds: 9\nwait: false\ntargets: null\n"
    )
    monkeypatch.syspath_prepend(str(site))
    invalidate_caches()
    kinds._installed.cache_clear()
    words = ("--config-dir", str(site / "configs"), "hydra/launcher=farm", "sae=topk", "data.seed=0,1")
    yield lambda *more: program(*words, *more)
    kinds._installed.cache_clear()


def test_its_options_and_its_place(farm: Any, program: Any) -> None:
    assert farm("dry_run=true", "hydra.launcher.beds=4") == 0
    assert "would grow in bed 1 of 4" in program.out
    assert farm("hydra.launcher.beds=many") == 2
    assert program.err == "sae-sweep: error: hydra.launcher.beds=many is not a whole number\n"
    assert farm("hydra.launcher.targets=[l0]") == 2
    assert "the sweeper needs the results" in program.err
    assert farm("hydra.launcher.beds=0") == 2
    assert "no bed is free" in program.err
    assert program.written == []


def test_submit_ask_status_and_cancel(farm: Any, program: Any) -> None:
    assert farm() == 0
    assert sorted(str(task.job) for task in read_tasks(Path("outputs/sweep"))) == ["0", "1"]
    assert program("status", "outputs/sweep") == 0
    assert "bed 0: sown (winter), 1 member" in program.out
    assert "bed 1 is sown (winter)" in program.out
    assert program("sae=topk", "data.seed=0,1") == 2
    assert "are in the hands of bed " in program.err
    assert program("cancel", "outputs/sweep") == 0
    assert program.out.startswith("cancelled bed ")
    assert program("status", "outputs/sweep", "--json") == 0
    told = {(member["state"], member["reason"]) for member in json.loads(program.out)["members"]}
    assert told == {("interrupted", "bed 0 ended as dug up"), ("interrupted", "bed 1 ended as dug up")}


def test_waiting_for_it(farm: Any, program: Any) -> None:
    assert farm("hydra.launcher.wait=true") == 0
    assert "0 running, 0 waiting, 2 of 2 over" in program.out
    assert [len(group) for group in program.training.groups] == [1, 1]
    assert {entry["state"] for entry in program.sweep("sweep")["members"].values()} == {"finished"}


def test_a_cluster_that_is_not_installed_any_more_is_one_line(
    farm: Any, program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert farm() == 0
    monkeypatch.setattr("sae_sweep.launch.clusters.CLUSTERS", {"slurm": None})
    assert program("status", "outputs/sweep") == 2
    assert program.err == "sae-sweep: error: farm: no such cluster is installed here; there is slurm\n"
