import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.tracking import times
from sae_sweep.tracking.jsonl import cut_back
from sae_sweep.tracking.runs import TrackedRun
from sae_sweep.tracking.tracker import Tracker
from sae_sweep.tracking.trackers import wandb as wandb_runs

MEMBERS = [
    TrackedRun(
        label,
        identity,
        name=label,
        job="train",
        config={"seed": seed, "architecture": "gated", "sae": {"architecture": "gated", "l1": 1e-3}},
        tags=["gated"],
        notes="a member",
    )
    for seed, (label, identity) in enumerate([("gated-a", "a" * 16), ("gated-b", "b" * 16)])
]


def config(mode: str) -> TrackingConfig:
    return TrackingConfig(
        mode=mode,
        project="frontiers",
        entity=None,
        group="sweep",
        tags=None,
        notes=None,
        artifacts=False,
        workspace=False,
        log_every=10,
    )


def lines(folder: Path, label: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / label / "metrics.jsonl").read_text().splitlines()]


def test_metrics_jsonl(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "sweep", config("none"), MEMBERS)
    tracker.log("gated-a", 10, 1000, {"loss": 0.5, "l0": float("nan"), "lr": None})
    tracker.log("gated-a", 20, 2000, {"loss": float("inf"), "l0": 3.0})
    tracker.finish("gated-a", 21, {"l0": 3.0})
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
        "from sae_sweep.tracking.tracker import Tracker\n"
        "from sae_sweep.tracking.runs import TrackedRun\n"
        "from sae_sweep.tracking.sweep_run import SweepRun\n"
        "import sae_sweep.reporting.report, sae_sweep.tracking.progress\n"
        "config = TrackingConfig('none', 'p', None, None, None, None, False, False, 1)\n"
        "run = TrackedRun('a', 'b', 'a', 'train', {'sweep': 's'}, [], '')\n"
        f"tracker = Tracker(Path({str(tmp_path)!r}), 's', config, [run])\n"
        "tracker.log('a', 1, 1, {'loss': 1.0}); tracker.finish('a', 2, {}); tracker.close()\n"
        f"sweep = SweepRun(Path({str(tmp_path)!r}), run, config, lambda latest: [])\n"
        "sweep.begin(); sweep.pace(1, {}, None); sweep.end([], Path('none')); sweep.close()\n"
        "print([name for name in ('wandb', 'torch', 'plotly', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class BrokenRun:
    def log(self, values: dict[str, float], step: int) -> None:
        raise OSError("the disk is full\nand more")


def begun_broken(self: Any, run: TrackedRun, step: float) -> int:
    self._runs[run.label] = BrokenRun()
    return -1


def test_wandb_that_breaks_while_logging(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(wandb_runs.WandbRuns, "begin", begun_broken)
    tracker = Tracker(tmp_path, "sweep", config("offline"), MEMBERS)
    for step in (1, 2, 3):
        tracker.log("gated-a", step, step, {"loss": 1.0})
        tracker.log("gated-b", step, step, {"loss": 1.0})
    tracker.finish("gated-b", 4, {})
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

    def begin(self, run, step):
        self._say("begin", run.label, run.identity, "at", step)
        return 10

    def log(self, label, step, moment, values):
        self._say("log", label, step, moment, *values.items())
        if step == 40:
            raise ValueError("no more")

    def finish(self, label, summary, histograms, files):
        self._say("finish", label, summary, len(histograms), len(files))

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
    tmp_path: Path, install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """It has step 10 of what is there, is told of lines as they come, and its troubles are its own."""
    folder = tmp_path / "outputs"
    tracker = Tracker(folder, "sweep", config("none"), MEMBERS[:1])
    for step in (10, 20):
        tracker.log("gated-a", step, 100 * step, {"loss": float(step)}, 1e9 + step)
    install("theirs", {"__init__.py": "", "notebook.py": THEIRS}, "[sae_sweep.trackers]\nnotebook = theirs.notebook\n")
    tracker = Tracker(folder, "sweep", config("none"), MEMBERS[:1], {"gated-a": 25})
    told = f"begin gated-a {'a' * 16} at 25\nlog gated-a 20 1000000020.0 ('tokens', 2000) ('train/loss', 20.0)\n"
    assert (folder / "theirs.txt").read_text() == told
    tracker.log("gated-a", 30, 3000, {"heldout/kl": 0.5, "l0": None}, 2e9)
    told += "log gated-a 30 2000000000.0 ('tokens', 3000) ('eval/kl', 0.5)\n"
    assert (folder / "theirs.txt").read_text() == told
    tracker.finish("gated-a", 31, {"l0": 6.5, "threshold_mode": "quantile", "tokens_trained": 3100})
    tracker.log("gated-a", 40, 4000, {"loss": 40.0}, 3e9)
    tracker.close()
    rest = (folder / "theirs.txt").read_text().removeprefix(told).splitlines()
    assert rest[0].startswith("log gated-a 31 ")
    assert rest[0].endswith(" ('tokens', 3100) ('eval/l0', 6.5) ('eval/tokens_trained', 3100)")
    finished = "{'eval/l0': 6.5, 'eval/threshold_mode': 'quantile', 'eval/tokens_trained': 3100}"
    assert rest[1:] == [
        f"finish gated-a {finished} 0 0",
        "log gated-a 40 3000000000.0 ('tokens', 4000) ('train/loss', 40.0)",
    ]
    given_up = "notebook: given up, training goes on with metrics.jsonl alone (ValueError: no more)"
    assert capsys.readouterr().err.splitlines() == [given_up]
    assert [line["step"] for line in lines(folder, "gated-a")] == [10, 20, 30, 40]


def test_when_each_step_was_taken(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "sweep", config("none"), MEMBERS[:1])
    for step in (0, 10, 20):
        tracker.log("gated-a", step, step, {"loss": 1.0}, 1e9 + step / 8)
    file = tmp_path / "gated-a" / "times.jsonl"
    assert times.read(file) == {0: 1e9, 10: 1e9 + 1.25, 20: 1e9 + 2.5}
    with file.open("a") as opened:
        opened.write('{"step": 30, "ti')
    times.cut_back(file, 20)
    assert times.read(file) == {0: 1e9, 10: 1e9 + 1.25}
    assert file.read_text() == '{"step": 0, "time": 1000000000.0}\n{"step": 10, "time": 1000000001.25}\n'
    times.cut_back(tmp_path / "none", 20)
    assert times.read(tmp_path / "none") == {}
