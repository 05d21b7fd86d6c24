"""What runs of wandb hold: read from the files that it writes offline."""

import json
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest

from sae_sweep.config.files import config_of
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.points import read_sweep
from sae_sweep.reporting.summary import frontier_tables, latest_tables
from sae_sweep.tracking import times
from sae_sweep.tracking.described import member_run, sweep_run
from sae_sweep.tracking.jsonl import cut_back
from sae_sweep.tracking.sweep_run import SweepRun
from sae_sweep.tracking.tracker import Tracker
from sae_sweep.tracking.wandb_files import cut_offline
from sae_sweep.tracking.wandb_ids import run_id
from sae_sweep.tracking.workload import Kind
from tests.tracking.offline import BLOCK, HEADER, await_stats, in_full, read_run, read_runs, settle
from tests.tracking.test_tracking import MEMBERS, config, lines

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("wandb_at_home")


def test_offline_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(tmp_path, "sweep", config("offline"), MEMBERS)
    began = time()
    for step in (10, 20, 30):
        for member in MEMBERS:
            values = {"loss": 1.0 / step, "l0": None if step == 20 else 7.0}
            tracker.log(member.label, step, 100 * step, values, began - 100 + step / 8)
    tracker.log("gated-a", 31, 3100, {"heldout/kl": 0.25}, began - 95)
    metrics = {"l0": 6.5, "ce_recovered": 0.93, "gamma": None, "threshold_mode": "quantile", "tokens_trained": 3100}
    tracker.finish("gated-a", 31, metrics)
    tracker.fail("gated-b", "it diverged")
    tracker.close()
    runs = read_runs(tmp_path)
    assert set(runs) == {"gated-a", "gated-b"}
    one, other = runs["gated-a"], runs["gated-b"]
    for run in runs.values():
        assert (run["group"], run["project"], run["job_type"]) == ("sweep", "frontiers", "train")
        assert (run["tags"], run["notes"]) == (["gated"], "a member")
    assert one["config"]["sae"] == {"architecture": "gated", "l1": 1e-3}
    assert one["config"]["architecture"] == "gated"
    assert one["axes"] == {"tokens": "", "*": "tokens"}
    told = [(row["_step"], row["tokens"], row.get("train/l0"), row.get("eval/l0")) for row in one["history"]]
    assert told == [(10, 1000, 7.0, None), (20, 2000, None, None), (30, 3000, 7.0, None), (31, 3100, None, 6.5)]
    assert one["history"][-1]["eval/kl"] == 0.25
    moments = [row["_timestamp"] for row in one["history"][:3]]
    assert moments == pytest.approx([began - 100 + step / 8 for step in (10, 20, 30)])
    assert one["history"][-1]["_timestamp"] > began
    assert (one["summary"]["eval/l0"], one["summary"]["eval/ce_recovered"], one["exit"]) == (6.5, 0.93, 0)
    assert one["summary"]["eval/threshold_mode"] == "quantile"
    assert (other["summary"]["failed"], other["exit"]) == ("it diverged", 1)
    assert other["alert"] == ("gated-b failed", "it diverged", "ERROR")


def test_what_runs_are_filtered_by(tmp_path: Path) -> None:
    """Flat, and nothing is null that was resolved: not the lr of the recipe, the middle layer, the width."""
    asked = config_of(["name=it", "sae=gated", "sae.l0=16", "seed=3", "tracking.tags=[mine]"])
    (member,) = plan_sweep([asked]).members
    run = member_run(member, asked.tracking)
    expected = {
        "architecture": "gated",
        "model_name": "demo",
        "layer": 2,
        "hook": "blocks.2.hook_resid_post",
        "d_in": 128,
        "width": 2048,
        "lr": member.schedule.lr,
        "sparsity_key": "l0",
        "sparsity_value": 16.0,
        "sparsity_target": 16.0,
        "objective": "local",
        "seed": 3,
    }
    assert {key: run.config.get(key) for key in expected} == expected
    assert run.config["training"]["lr"] == member.schedule.lr
    assert None not in [value for group in run.config.values() if isinstance(group, dict) for value in group.values()]
    assert None not in run.config.values()
    assert run.tags == ["gated", "demo", "blocks.2.hook_resid_post", "mine"]
    assert run.notes == member.words


def test_a_resolved_knob_is_the_target_of_topk() -> None:
    (member,) = plan_sweep([config_of(["sae=topk", "sae.k=24"])]).members
    found = member_run(member, config("none")).config
    assert (found["sparsity_key"], found["sparsity_value"], found["sparsity_target"]) == ("k", 24, 24)


def opened_sweep(folder: Path, mode: str) -> SweepRun:
    plan = plan_sweep([config_of(["name=it", "sae=topk", f"sae.k={k}"]) for k in (8, 16)])
    run = sweep_run("it", None, plan.members, config(mode))
    return SweepRun(folder, run, config(mode), lambda latest: latest_tables(folder, latest))


def test_the_run_of_a_sweep(sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It has pace and frontier from two commands, of which the first ended early, and the report."""
    monkeypatch.setattr("sae_sweep.tracking.sweep_run.LEAST_SECONDS", 0.0)
    monkeypatch.setattr("sae_sweep.tracking.sweep_run.RENEW_SECONDS", 0.0)
    (sweep / "report.html").write_text("<html>")
    first = opened_sweep(sweep, "offline")
    first.begin()
    first.pace(100, {Kind.STEPS: 50.0}, 7.0)
    running = next(m for m, entry in json.loads((sweep / "sweep.json").read_text())["members"].items() if "16" in m)
    first.judged(running, {"l0": 5.0, "ce_recovered": 0.5})
    first.close()
    second = opened_sweep(sweep, "offline")
    second.begin()
    second.pace(200, {}, None)
    second.end(frontier_tables(cells(read_sweep(sweep).points)), sweep / "report.html")
    await_stats(sweep)
    second.close()
    told = capsys.readouterr().err.splitlines()
    assert told == [f"wandb: runs are kept offline; `sae-sweep upload {sweep}` sends them"] * 2
    run = read_runs(sweep)["it"]
    assert run["job_type"] == "sweep"
    assert {"sweep", "command", "host", "members"} <= run["config"].keys()
    assert [row["_step"] for row in run["history"]] == [0, 1, 2, 3]
    assert [row.get("sweep/tokens") for row in run["history"]] == [100, None, 200, None]
    assert run["history"][0]["sweep/tokens_per_second"] == 50.0
    assert run["history"][0]["sweep/memory_gb"] > 0.01
    assert run["history"][1]["frontier/nrows"] in (16, 17)
    assert run["history"][3]["sweep/members_judged"] == 16
    assert run["config"]["_wandb/visualize/frontier_plot"]["panel_type"] == "Vega2"
    assert run["artifacts"]["it-report.html"] == "report"
    assert run["stats"] >= 1
    newest = max(sweep.glob("wandb/offline-run-*/files/media/table/frontier_3*.table.json"))
    table = json.loads(newest.read_text())
    marks = [row[table["columns"].index("on_frontier")] for row in table["data"]]
    assert (marks.count(True), marks.count(False)) == (7, 9)
    kept = [json.loads(line) for line in (sweep / "pace.jsonl").read_text().splitlines()]
    assert [line["step"] for line in kept] == [0, 1, 2, 3]


KILLED = """
import os, sys, time; from pathlib import Path
from tests.tracking.test_tracking import MEMBERS, config
from sae_sweep.tracking.tracker import Tracker
root, start, stop, wait = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
tracker = Tracker(root, 'sweep', config('offline'), MEMBERS[:1], {'gated-a': start})
for step in range(start, stop, 10):
    tracker.log('gated-a', step, 100 * step, {'loss': 1.0 + step}); time.sleep(0.002)
if start == 0: tracker.log('gated-a', 30, 3000, {'heldout/kl': 0.5})
time.sleep(wait); os.kill(os.getpid(), 9)
"""


def test_three_kills_neither_lose_a_step_nor_log_one_twice(tmp_path: Path) -> None:
    """Each process is killed beyond the checkpoint that the next one goes on from; whether wandb wrote what it was told
    is its own affair, and its helper may live on for a while."""
    curves, noted = tmp_path / "gated-a" / "metrics.jsonl", tmp_path / "gated-a" / "times.jsonl"
    start = 0
    for stop, checkpoint, wait in ((50, 30, 0.0), (90, 60, 1.0), (110, 80, 0.2)):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(start), str(stop), str(wait)]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
        kept = [line for line in curves.read_text().splitlines(keepends=True) if json.loads(line)["step"] < checkpoint]
        assert cut_back(curves, sum(map(len, kept)))
        times.cut_back(noted, checkpoint)
        start = checkpoint
    tracker = Tracker(tmp_path, "sweep", config("offline"), MEMBERS[:1], {"gated-a": start})
    for step in range(start, 120, 10):
        tracker.log("gated-a", step, 100 * step, {"loss": 1.0 + step})
    tracker.finish("gated-a", 120, {"l0": 3.0, "tokens_trained": 12000})
    tracker.close()
    history = read_runs(tmp_path)["gated-a"]["history"]
    assert [row["_step"] for row in history] == list(range(0, 130, 10))
    assert [row.get("train/loss") for row in history[:-1]] == [1.0 + step for step in range(0, 120, 10)]
    moments = [row["_timestamp"] for row in history]
    assert all(before < after for before, after in pairwise(moments))
    assert moments[:-1] == pytest.approx(list(times.read(noted).values()), abs=1e-5)


def test_steps_are_cut_from_a_file_that_may_end_in_the_middle(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, "sweep", config("offline"), MEMBERS)
    for step in range(0, 3000, 10):
        tracker.log("gated-a", step, step, {f"value {i}": 1.0 * i for i in range(9)})
    tracker.finish("gated-a", 3000, {})
    settle()
    [file] = [f for f in tmp_path.glob("wandb/offline-run-*/run-*.wandb") if read_run(f)["name"] == "gated-a"]
    name, whole, nothing = file.stem.removeprefix("run-"), file.read_bytes(), tmp_path / "no.wandb"
    assert len(whole) > 2 * BLOCK
    assert cut_offline(tmp_path, name, 1e9, nothing) == 3000
    assert file.read_bytes() == whole
    assert cut_offline(tmp_path, "another", 0, nothing) == -1
    assert cut_offline(tmp_path, name, 0, file) == -1
    found = []
    for size in (0, HEADER, 40_000, 60_000, 60_003):
        file.write_bytes(whole[:size])
        there = max([row["_step"] for row in in_full(file)], default=-1)
        found.append(cut_offline(tmp_path, name, 1e9, nothing))
        assert found[-1] == there == max([row["_step"] for row in read_run(file)["history"]], default=-1)
    assert found[1] == -1
    assert 0 < found[2] < found[3]
    file.write_bytes(whole)
    assert cut_offline(tmp_path, name, 1500, nothing) == 1490
    assert [row["_step"] for row in read_run(file)["history"]] == list(range(0, 1500, 10))
    assert read_run(file)["config"]["architecture"] == "gated"
    assert cut_offline(tmp_path, name, 0, nothing) == -1
    assert read_run(file)["history"] == []
    assert read_run(file)["name"] == "gated-a"


def test_run_ids_stay_with_the_folder(tmp_path: Path) -> None:
    first, again, elsewhere = (run_id(tmp_path / folder, "sweep", "a" * 16) for folder in ("x", "x", "y"))
    assert first == again
    assert first != elsewhere
    assert first != run_id(tmp_path / "x", "sweep", "b" * 16)


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
        start, folder = monotonic(), tmp_path / "outputs"
        sweep = opened_sweep(folder, "online")
        sweep.begin()
        tracker = Tracker(folder, "sweep", config("online"), MEMBERS)
        assert monotonic() - start < 15
    tracker.log("gated-a", 10, 1000, {"loss": 0.5})
    tracker.finish("gated-a", 11, {"l0": 1.0})
    tracker.close()
    sweep.close()
    said = capsys.readouterr().err
    why = f"http://127.0.0.1:{port} does not answer" if lacking == "network" else "there is no API key"
    assert said.count(why) == 1
    assert said.count(f"runs are kept offline; `sae-sweep upload {folder}` sends them") == 1
    assert read_runs(folder)["gated-a"]["summary"]["eval/l0"] == 1.0
    assert lines(folder, "gated-a") == [{"step": 10, "tokens": 1000, "loss": 0.5}]


def test_a_finished_member_is_kept_as_an_artifact(tmp_path: Path) -> None:
    asked: Any = config("offline")
    object.__setattr__(asked, "artifacts", True)
    tracker = Tracker(tmp_path, "sweep", asked, MEMBERS[:1])
    (tmp_path / "gated-a" / "metrics.json").write_text("{}")
    tracker.finish("gated-a", 1, {"l0": 1.0})
    tracker.close()
    assert read_runs(tmp_path)["gated-a"]["artifacts"] == {"sweep-gated-a": "sae"}
