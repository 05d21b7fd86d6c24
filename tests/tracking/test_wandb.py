"""What runs of wandb hold: read from the files that it writes offline."""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

import psutil
import pytest

from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.points import read_sweep
from sae_sweep.reporting.summary import log_summary
from sae_sweep.tracking.jsonl import cut_back
from sae_sweep.tracking.tracker import Tracker
from sae_sweep.tracking.trackers import wandb as wandb_runs
from sae_sweep.tracking.wandb_files import last_offline_step
from tests.tracking.test_tracking import MEMBERS, config, lines

BLOCK, HEADER = 32768, 7
ROOT = Path(__file__).parents[2]


def wandb_records(file: Path) -> Iterator[Any]:
    """Records of a .wandb file: a 7-byte header, then a log of 32 KiB blocks whose records may be in pieces."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, whole = file.read_bytes(), HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += HEADER
        whole += data[position : position + length]
        position += length
        if kind in (1, 4):  # a whole record, or its last piece
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def entries(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_run(file: Path) -> dict[str, Any]:
    run: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "axes": {}, "exit": None}
    for record in wandb_records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run |= {"name": record.run.display_name, "group": record.run.run_group, "job_type": record.run.job_type}
            run |= {"id": record.run.run_id, "project": record.run.project}
            run["config"] |= entries(record.run.config.update)
        elif kind == "config":
            run["config"] |= entries(record.config.update)
        elif kind == "history":
            run["history"].append(entries(record.history.item))
        elif kind == "summary":
            run["summary"] |= entries(record.summary.update)
        elif kind == "metric":
            run["axes"][record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            run["exit"] = record.exit.exit_code
        elif kind == "preempting":
            run["preempting"] = True
    return run


def settle() -> None:
    """wandb's own end of all runs. Its service process, now and then, does not exit when told to: it is then ended."""
    ending = Thread(target=sys.modules["wandb"].teardown, daemon=True)
    ending.start()
    ending.join(20)
    if ending.is_alive():
        for child in psutil.Process().children(recursive=True):
            if "wandb" in child.name():
                child.kill()
        ending.join(20)


def read_runs(folder: Path) -> dict[str, dict[str, Any]]:
    settle()  # files may be written a moment after a run is finished, but not after this
    found = [read_run(file) for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]
    assert len({run["id"] for run in found}) == len(found)
    return {run["name"]: run for run in found}


@pytest.fixture
def wandb_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home" / name))
    yield
    if "wandb" in sys.modules:
        settle()


@pytest.mark.usefixtures("wandb_at_home")
def test_offline_runs(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "outputs"
    tracker = Tracker(folder, "sweep", config("offline"), MEMBERS)
    for step in (10, 20, 30):
        for member in MEMBERS:
            tracker.log(member.label, step, 100 * step, {"loss": 1.0 / step, "l0": None if step == 20 else 7.0})
    tracker.finish("gated-a", {"l0": 6.5, "ce_recovered": 0.93, "gamma": None, "threshold_mode": None})
    tracker.fail("gated-b", "diverged")
    tracker.close()
    log_summary(folder, "sweep", config("offline"), cells(read_sweep(sweep).points))
    runs = read_runs(folder)
    assert set(runs) == {"gated-a", "gated-b", "sweep frontier"}
    assert {run["group"] for run in runs.values()} == {"sweep"}
    assert {run["project"] for run in runs.values()} == {"frontiers"}
    one = runs["gated-a"]
    assert one["job_type"] == "train"
    assert one["config"]["sae"] == {"architecture": "gated", "l1": 1e-3}
    assert one["config"]["architecture"] == "gated"
    assert "output_dir" not in one["config"]
    assert one["axes"] == {"tokens": "", "*": "tokens"}
    assert [(row["_step"], row["tokens"], row.get("l0")) for row in one["history"]] == (
        [(10, 1000, 7.0), (20, 2000, None), (30, 3000, 7.0)]
    )
    assert (one["summary"]["l0"], one["summary"]["ce_recovered"], one["exit"]) == (6.5, 0.93, 0)
    assert (runs["gated-b"]["summary"]["failed"], runs["gated-b"]["exit"]) == ("diverged", 1)
    assert f"wandb sync {folder / 'wandb'}/offline-run-*" in capsys.readouterr().err
    check_summary(runs["sweep frontier"], folder)


def check_summary(run: dict[str, Any], folder: Path) -> None:
    assert run["job_type"] == "sweep-summary"
    assert run["axes"] == {}
    [row] = run["history"]
    assert row["frontier/nrows"] == 16
    [file] = folder.glob("wandb/offline-run-*/files/media/table/frontier*.table.json")
    table = json.loads(file.read_text())
    marks = [row[table["columns"].index("on_frontier")] for row in table["data"]]
    assert (marks.count(True), marks.count(False)) == (7, 9)
    assert run["config"]["_wandb/visualize/frontier_plot"]["panel_type"] == "Vega2"


@pytest.mark.usefixtures("wandb_at_home")
def test_wandb_is_told_what_a_checkpoint_covers_and_no_more(tmp_path: Path) -> None:
    """The second step's line may still grow by what is measured at it."""
    tracker = Tracker(tmp_path, "sweep", config("offline"), MEMBERS)
    for step in (0, 10, 20):
        tracker.log("gated-a", step, 100 * step, {"loss": 1.0 + step})
    tracker.covered({"gated-a": 20, "gated-b": 20})
    tracker.close()
    run = read_runs(tmp_path)["gated-a"]
    assert [row["_step"] for row in run["history"]] == [0, 10]
    assert run["exit"] == 1
    assert run["preempting"]


@pytest.mark.usefixtures("wandb_at_home")
@pytest.mark.parametrize("killed", [0.0, 1.5])
def test_a_kill_neither_loses_a_line_nor_logs_one_twice(tmp_path: Path, killed: float) -> None:
    """A process is killed after it told wandb of steps 0 to 20; whether wandb wrote them is its own affair. The next
    process goes on from a checkpoint at step 30, whose lines are in metrics.jsonl."""
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from tests.tracking.test_tracking import MEMBERS, config\n"
        "from sae_sweep.tracking.tracker import Tracker\n"
        "tracker = Tracker(Path(sys.argv[1]), 'sweep', config('offline'), MEMBERS)\n"
        "for step in (0, 10, 20, 30, 40): tracker.log('gated-a', step, 100 * step, {'loss': 1.0 + step})\n"
        "tracker.covered({'gated-a': 30}); time.sleep(float(sys.argv[2])); os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(killed)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    file = tmp_path / "gated-a" / "metrics.jsonl"
    assert cut_back(file, sum(map(len, file.read_text().splitlines(keepends=True)[:3])))
    tracker = Tracker(tmp_path, "sweep", config("offline"), MEMBERS)
    tracker.covered({"gated-a": 30})
    for step in (30, 40):
        tracker.log("gated-a", step, 100 * step, {"loss": 1.0 + step})
    tracker.finish("gated-a", {"l0": 3.0})
    tracker.close()
    settle()
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    steps = [row["_step"] for file in files for row in read_run(file)["history"] if read_run(file)["name"] == "gated-a"]
    assert steps == [0, 10, 20, 30, 40]


@pytest.mark.usefixtures("wandb_at_home")
def test_the_last_step_of_a_file_that_ends_in_the_middle(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "sweep", config("offline"), MEMBERS)
    for step in range(0, 3000, 10):
        tracker.log("gated-a", step, step, {f"value {i}": 1.0 * i for i in range(9)})
    tracker.finish("gated-a", {})
    settle()
    [file] = [f for f in tmp_path.glob("wandb/offline-run-*/run-*.wandb") if read_run(f)["name"] == "gated-a"]
    run_id, whole = file.stem.removeprefix("run-"), file.read_bytes()
    assert len(whole) > 2 * BLOCK
    assert last_offline_step(tmp_path, run_id) == 2990
    assert last_offline_step(tmp_path, "another") == -1
    found = []
    for size in (0, HEADER, 40_000, 60_000, 60_003):
        file.write_bytes(whole[:size])
        found.append(last_offline_step(tmp_path, run_id))
        assert found[-1] == max([row["_step"] for row in in_full(file)], default=-1)
    assert found == sorted(found)
    assert found[1] == -1
    assert 0 < found[2] < found[3]


def in_full(file: Path) -> list[dict[str, Any]]:
    """The history of a file that ends in the middle: the last record is not there in full."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    history, records = [], wandb_records(file)
    while True:
        try:
            record = next(records, None)
        except DecodeError:
            return history
        if record is None:
            return history
        if record.WhichOneof("record_type") == "history":
            history.append(entries(record.history.item))


@pytest.mark.usefixtures("wandb_at_home")
def test_run_ids_stay_with_the_folder(tmp_path: Path) -> None:
    runs = [wandb_runs.WandbRuns(tmp_path / folder, "sweep", config("offline")) for folder in ("x", "x", "y")]
    first, again, elsewhere = (run._run_id("a" * 16) for run in runs)
    assert first == again
    assert first != elsewhere
    assert first != runs[0]._run_id("b" * 16)


@pytest.mark.usefixtures("wandb_at_home")
@pytest.mark.parametrize("lacking", ["network", "key"])
def test_what_cannot_be_sent_is_kept_offline_at_once_and_told_how_to_upload(
    lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no key in .netrc
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if lacking == "key" else 9
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        if lacking == "network":
            monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        start = monotonic()
        tracker = Tracker(tmp_path / "outputs", "sweep", config("online"), MEMBERS)
        assert monotonic() - start < 15
    tracker.log("gated-a", 10, 1000, {"loss": 0.5})
    tracker.finish("gated-a", {"l0": 1.0})
    tracker.close()
    said = capsys.readouterr().err
    why = f"http://127.0.0.1:{port} does not answer" if lacking == "network" else "there is no API key"
    assert said.count(why) == 1
    assert said.count("runs are kept offline; upload them with: wandb sync ") == 1
    assert read_runs(tmp_path / "outputs")["gated-a"]["summary"]["l0"] == 1.0
    assert lines(tmp_path / "outputs", "gated-a") == [{"step": 10, "tokens": 1000, "loss": 0.5}]
