"""Whole sweeps with wandb: killed three times at random moments, and sent to a server that comes and goes."""

import json
import math
import signal
from itertools import pairwise
from pathlib import Path
from random import Random
from time import time
from typing import Any

import pytest
import wandb  # whose service is told to settle

from sae_sweep.tracking import times
from tests.e2e.kills import SWEEP, checkpoints, ended_at, finish, start, wait
from tests.tracking.conftest import wandb_at_home
from tests.tracking.offline import read_runs
from tests.tracking.server import Kept, Mood, Server
from tests.tracking.test_online import server

__all__ = ["server", "wandb", "wandb_at_home"]
pytestmark = [pytest.mark.evidence, pytest.mark.usefixtures("wandb_at_home")]

KILLS = 3
ARCHITECTURES = {"gated", "standard", "batchtopk"}


@pytest.fixture
def arguments(llama_folder: Path, text_file: Path) -> tuple[str, ...]:
    return (
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={text_file}", *SWEEP),
        *("training.tokens=1.8e4", "training.checkpoint_tokens=100", "name=it"),
    )


def curves(member: Path) -> list[dict[str, Any]]:
    """Its lines on disk; what was judged on the way has one of the same step as what was trained."""
    return [json.loads(line) for line in (member / "metrics.jsonl").read_text().splitlines()]


def assert_whole(history: list[dict[str, Any]], member: Path, began: float, ended: float) -> None:
    """Every step of the curves is there once, with its time, and after them what the member was found to be."""
    steps = sorted({line["step"] for line in curves(member)})
    assert [row["_step"] for row in history[: len(steps)]] == steps
    assert len(history) - len(steps) in (0, 1), "its final numbers have a row of their own, or that of the last step"
    moments = [row["_timestamp"] for row in history]
    assert began < moments[0]
    assert moments[-1] < ended
    assert all(before < after for before, after in pairwise(moments))
    noted = times.read(member / "times.jsonl")
    assert moments[: len(steps)] == pytest.approx([noted[step] for step in steps], abs=1e-5)
    trained = [row for row in history if "train/loss" in row]
    assert {"train/loss", "train/l0", "train/fvu", "train/dead_fraction", "train/lr"} <= trained[-1].keys()
    judged = [row for row in history if "eval/kl" in row]
    assert len(judged) >= 8, "every 2,000 of 18,000 tokens"
    assert {"eval/l0", "eval/ce_recovered", "eval/kl", "eval/fvu"} <= judged[-1].keys()
    for row in history:
        values = [value for name, value in row.items() if name.startswith(("train/", "eval/")) and value is not None]
        numbers = [value for value in values if not isinstance(value, str | dict | list)]
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in numbers)


def test_three_kills_of_a_tracked_sweep(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """One run for each member and one for the sweep, though four commands wrote them."""
    random, sweep, began, resumed = Random(3), tmp_path / "outputs" / "it", time(), 0
    words = (*arguments, "tracking=offline", "tracking.project=killed")
    for _ in range(KILLS):
        process = start(tmp_path, *words)
        assert ended_at(process, sweep, random, signal.SIGKILL), "it finished before it was killed often enough"
        code, said = finish(process)
        assert code == -signal.SIGKILL, said
        resumed += "resuming at step" in said
    code, said = finish(start(tmp_path, *words))
    assert code == 0, said
    assert resumed + ("resuming at step" in said) == KILLS
    ended, runs = time(), read_runs(sweep)
    members = {file.parent.name for file in sweep.glob("*/metrics.json")}
    assert runs.keys() == {"it", *members}
    assert {runs[name]["config"]["architecture"] for name in members} == ARCHITECTURES
    assert len({run["id"] for run in runs.values()}) == 1 + len(members)
    for name in members:
        run = runs[name]
        assert (run["project"], run["group"], run["job_type"], run["exit"]) == ("killed", "it", "train", 0)
        assert_whole(run["history"], sweep / name, began, ended)
        final = json.loads((sweep / name / "metrics.json").read_text())
        assert run["summary"]["eval/l0"] == pytest.approx(final["l0"])
        assert run["summary"]["eval/ce_recovered"] == pytest.approx(final["ce_recovered"])
    of_sweep = runs["it"]
    assert of_sweep["job_type"] == "sweep"
    steps = [row["_step"] for row in of_sweep["history"]]
    assert steps == sorted(set(steps))
    assert all(one["_timestamp"] < other["_timestamp"] for one, other in pairwise(of_sweep["history"]))
    assert of_sweep["history"][-1]["sweep/members_judged"] == len(members)


def sent(run: Kept, member: Path) -> None:
    """All steps are on the server, in order, each once."""
    steps = sorted({line["step"] for line in curves(member)})
    found = [row["_step"] for row in run.rows]
    assert found[: len(steps)] == steps
    assert len(found) - len(steps) in (0, 1)
    moments = [row["_timestamp"] for row in run.rows]
    assert all(before < after for before, after in pairwise(moments))


def test_a_server_that_comes_and_goes(arguments: tuple[str, ...], server: Server, tmp_path: Path) -> None:
    """Training goes on whatever it does; what it then lacks is sent from the folder."""
    sweep = tmp_path / "outputs" / "it"
    process = start(tmp_path, *arguments, "tracking=online", "tracking.project=sent")
    moods: tuple[Mood, ...] = ("refuses", "hangs", "takes")
    for number, mood in enumerate(moods, start=1):
        assert wait(process, lambda number=number: checkpoints(sweep) >= 12 * number), finish(process)
        server.mood = mood
    server.released.set()
    code, said = finish(process)
    assert code == 0, said
    assert "Traceback" not in said
    members = {file.parent.name for file in sweep.glob("*/metrics.json")}
    assert len(members) == len(ARCHITECTURES)
    code, said = finish(start(tmp_path, "upload", "outputs/it"))
    assert code == 0, said
    assert {run.bucket.get("displayName") for run in server.runs.values()} == {"it", *members}
    for name in members:
        sent(server.named(name), sweep / name)
