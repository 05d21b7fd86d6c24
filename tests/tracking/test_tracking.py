import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.points import read_sweep
from sae_sweep.reporting.summary import log_summary
from sae_sweep.tracking.jsonl import cut_back
from sae_sweep.tracking.tracker import TrackedMember, Tracker
from sae_sweep.tracking.trackers import wandb as wandb_runs

MEMBERS = [
    TrackedMember(
        label,
        identity,
        {"seed": seed, "sae": {"architecture": "gated", "l1": 1e-3}, "training": {}, "output_dir": "outputs"},
    )
    for seed, (label, identity) in enumerate([("gated-a", "a" * 16), ("gated-b", "b" * 16)])
]


def config(mode: str) -> TrackingConfig:
    return TrackingConfig(mode=mode, project="frontiers", entity=None, log_every=10)


def lines(folder: Path, label: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / label / "metrics.jsonl").read_text().splitlines()]


def test_metrics_jsonl(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "sweep", config("none"), MEMBERS)
    tracker.log("gated-a", 10, 1000, {"loss": 0.5, "l0": float("nan"), "lr": None})
    tracker.log("gated-a", 20, 2000, {"loss": float("inf"), "l0": 3.0})
    tracker.finish("gated-a", {"l0": 3.0})
    tracker.fail("gated-b", "diverged")
    tracker.close()
    text = (tmp_path / "gated-a" / "metrics.jsonl").read_text()
    assert text == (
        '{"step": 10, "tokens": 1000, "loss": 0.5, "l0": null, "lr": null}\n'
        '{"step": 20, "tokens": 2000, "loss": null, "l0": 3.0}\n'
    )


def test_a_tracker_goes_on_in_the_file_that_is_there(tmp_path: Path) -> None:
    for step in (10, 20):
        tracker = Tracker(tmp_path, "sweep", config("none"), MEMBERS)
        tracker.log("gated-a", step, 100 * step, {"loss": 1.0})
        tracker.close()
    assert [line["step"] for line in lines(tmp_path, "gated-a")] == [10, 20]


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "sweep", config("none"), MEMBERS)
    tracker.log("gated-a", 10, 1000, {"loss": 0.5})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            tracker.log("gated-a", 20, 2000, {"loss": 0.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / "gated-a" / "metrics.jsonl")
    tracker.log("gated-a", 20, 2000, {"loss": 0.25})
    assert [line["step"] for line in lines(tmp_path, "gated-a")] == [10, 20]


def test_a_file_is_cut_back(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert cut_back(file, 12)
    assert file.read_text() == '{"step": 1}\n'
    assert not cut_back(file, 24)
    assert file.read_text() == '{"step": 1}\n'
    assert cut_back(file, 0)
    assert not file.exists()
    assert cut_back(file, 0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_on_disk(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "sweep", config("none"), MEMBERS)
    tracker.log("gated-a", 10, 1000, {"loss": 0.5})
    assert tracker.sync() == {"gated-a": len('{"step": 10, "tokens": 1000, "loss": 0.5}\n'), "gated-b": 0}


def test_without_wandb_neither_it_nor_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sae_sweep.config.schema import TrackingConfig\n"
        "from sae_sweep.tracking.tracker import Tracker, TrackedMember\n"
        "from sae_sweep.reporting.summary import log_summary\n"
        "import sae_sweep.reporting.report, sae_sweep.tracking.progress\n"
        "config = TrackingConfig(mode='none', project='p', entity=None, log_every=1)\n"
        f"tracker = Tracker(Path({str(tmp_path)!r}), 's', config, [TrackedMember('a', 'b', {{}})])\n"
        "tracker.log('a', 1, 1, {'loss': 1.0}); tracker.finish('a', {}); tracker.close()\n"
        f"log_summary(Path({str(tmp_path)!r}), 's', config, [])\n"
        "print([name for name in ('wandb', 'torch', 'plotly', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class BrokenRun:
    def log(self, values: dict[str, float], step: int) -> None:
        raise OSError("the disk is full\nand more")


def test_wandb_that_breaks_while_logging(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(
        wandb_runs.WandbRuns, "begin", lambda self, label, *rest: self._runs.update({label: BrokenRun()})
    )
    tracker = Tracker(tmp_path, "sweep", config("offline"), MEMBERS)
    for step in (1, 2, 3):
        tracker.log("gated-a", step, step, {"loss": 1.0})
        tracker.log("gated-b", step, step, {"loss": 1.0})
    tracker.finish("gated-b", {})
    tracker.close()
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "wandb: given up, training goes on with metrics.jsonl alone (OSError: the disk is full)",
    ]
    assert [line["step"] for line in lines(tmp_path, "gated-b")] == [1, 2, 3]


THEIRS = """
from pathlib import Path


class Runs:
    def __init__(self, folder):
        self._file = folder / "theirs.txt"

    def _say(self, *words):
        with self._file.open("a") as file:
            print(*words, file=file)

    def begin(self, label, identity, config):
        self._say("begin", label, identity)
        return 10

    def log(self, label, step, values):
        self._say("log", label, step, values["loss"])
        if step == 40:
            raise ValueError("no more")

    def finish(self, label, metrics):
        self._say("finish", label, metrics["l0"])

    def fail(self, label, reason):
        self._say("fail", label, reason)

    def frontier(self, tables):
        self._say(*[f"{table.title}: {len(table.rows)} by {table.y}" for table in tables])

    def close(self):
        self._say("close")


def open_runs(folder, sweep, config):
    return Runs(folder) if config.project == "frontiers" else None
"""


def test_a_tracker_is_added_from_outside(
    sweep: Path, tmp_path: Path, install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """It has step 10 of what is there, is told of what a checkpoint covers, and its troubles are its own."""
    folder = tmp_path / "outputs"
    tracker = Tracker(folder, "sweep", config("none"), MEMBERS[:1])
    for step in (10, 20):
        tracker.log("gated-a", step, 100 * step, {"loss": float(step)})
    install("theirs", {"__init__.py": "", "notebook.py": THEIRS}, "[sae_sweep.trackers]\nnotebook = theirs.notebook\n")
    tracker = Tracker(folder, "sweep", config("none"), MEMBERS[:1])
    for step in (30, 40, 50):
        tracker.log("gated-a", step, 100 * step, {"loss": float(step)})
    tracker.covered({"gated-a": 40})
    told = (folder / "theirs.txt").read_text()
    assert told == f"begin gated-a {'a' * 16}\nlog gated-a 20 20.0\nlog gated-a 30 30.0\n"
    tracker.finish("gated-a", {"l0": 6.5})
    tracker.close()
    assert (folder / "theirs.txt").read_text() == told + "log gated-a 40 40.0\n"
    given_up = "notebook: given up, training goes on with metrics.jsonl alone (ValueError: no more)"
    assert capsys.readouterr().err.splitlines() == [given_up]
    assert [line["step"] for line in lines(folder, "gated-a")] == [10, 20, 30, 40, 50]
    log_summary(folder, "sweep", config("none"), cells(read_sweep(sweep).points))
    assert (folder / "theirs.txt").read_text().endswith("gpt2 · blocks.6.hook_resid_post: 16 by ce_recovered\nclose\n")
