"""Runs that are sent as they go, to a server on loopback that takes, refuses, hangs, and comes back."""

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep

import pytest

from sae_sweep.tracking import times
from sae_sweep.tracking.jsonl import cut_back
from sae_sweep.tracking.tracker import Tracker
from sae_sweep.tracking.trackers import wandb as wandb_runs
from tests.tracking.offline import read_runs, settle
from tests.tracking.server import Server
from tests.tracking.test_tracking import MEMBERS, config, lines

pytestmark = pytest.mark.usefixtures("wandb_at_home")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    if "wandb" in sys.modules:
        settle()  # whose server was another
    made = Server()
    monkeypatch.setenv("WANDB_BASE_URL", made.url)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    with made.serving():
        yield made
        settle()


def logged(tracker: Tracker, steps: range) -> None:
    for step in steps:
        tracker.log("gated-a", step, 100 * step, {"loss": 1.0 + step})


def killed_beyond(folder: Path, checkpoint: int) -> None:
    """What a checkpoint at that step leaves of a member's lines."""
    curves = folder / "gated-a" / "metrics.jsonl"
    kept = [line for line in lines(folder, "gated-a") if line["step"] < checkpoint]
    text = curves.read_text().splitlines(keepends=True)
    assert cut_back(curves, sum(map(len, text[: len(kept)])))
    times.cut_back(folder / "gated-a" / "times.jsonl", checkpoint)


def wait_for(server: Server, rows: int) -> None:
    """Until the server has so many rows of the first member."""
    end = monotonic() + 20
    while monotonic() < end and not any(len(run.rows) >= rows for run in server.runs.values()):
        sleep(0.05)


@pytest.mark.parametrize("rewinds", [False, True])
def test_a_server_that_takes_what_a_resumed_run_sends(server: Server, rewinds: bool, tmp_path: Path) -> None:
    """Where it takes steps back it has those of the second command, else the first one's: they are the same."""
    server.rewinds = rewinds
    first = Tracker(tmp_path, "sweep", config("online"), MEMBERS[:1])
    logged(first, range(0, 50, 10))
    first.close()
    killed_beyond(tmp_path, 30)
    second = Tracker(tmp_path, "sweep", config("online"), MEMBERS[:1], {"gated-a": 30})
    logged(second, range(30, 80, 10))
    second.finish("gated-a", 80, {"l0": 3.0, "tokens_trained": 8000})
    second.close()
    run = server.named("gated-a")
    assert [row["_step"] for row in run.rows] == list(range(0, 90, 10))
    assert [row.get("train/loss") for row in run.rows[:-1]] == [1.0 + step for step in range(0, 80, 10)]
    assert all(before["_timestamp"] < after["_timestamp"] for before, after in pairwise(run.rows))
    noted = times.read(tmp_path / "gated-a" / "times.jsonl")
    own = [row["_timestamp"] for row in run.rows if row["_step"] in noted and (rewinds or row["_step"] >= 50)]
    assert own == pytest.approx([noted[step] for step in noted if rewinds or step >= 50], abs=1e-5)
    assert run.summary["eval/l0"] == 3.0
    assert run.bucket["groupName"] == "sweep"
    assert run.bucket["jobType"] == "train"


@pytest.mark.parametrize("mood", ["refuses", "hangs"])
def test_a_server_that_takes_no_run(
    server: Server, mood: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_runs, "INIT_TIMEOUT", 1.0)
    server.mood = mood  # type: ignore[assignment]
    start = monotonic()
    tracker = Tracker(tmp_path, "sweep", config("online"), MEMBERS)
    assert monotonic() - start < 8
    logged(tracker, range(0, 50, 10))
    tracker.finish("gated-a", 50, {"l0": 3.0, "tokens_trained": 5000})
    tracker.close()
    assert "; runs are kept offline" in capsys.readouterr().err
    server.released.set()
    run = read_runs(tmp_path)["gated-a"]
    assert [row["_step"] for row in run["history"]] == list(range(0, 60, 10))


@pytest.mark.parametrize("mood", ["fails", "hangs"])
def test_a_server_that_comes_back(server: Server, mood: str, tmp_path: Path) -> None:
    """Training is not held up, and in the end all is there."""
    tracker = Tracker(tmp_path, "sweep", config("online"), MEMBERS[:1])
    logged(tracker, range(0, 50, 10))
    server.mood = mood  # type: ignore[assignment]
    start = monotonic()
    logged(tracker, range(50, 1000, 10))
    assert monotonic() - start < 3
    server.mood = "takes"
    server.released.set()
    tracker.finish("gated-a", 1000, {"l0": 3.0, "tokens_trained": 100_000})
    tracker.close()
    assert [row["_step"] for row in server.named("gated-a").rows] == list(range(0, 1010, 10))
