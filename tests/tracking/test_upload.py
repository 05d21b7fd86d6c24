"""A sweep sent from its folder, whatever was tracked."""

import json
import os
from pathlib import Path

import pytest

from sae_sweep.cli import main
from sae_sweep.launch.wandb import asked_of
from sae_sweep.tracking.past import past_runs
from sae_sweep.tracking.wandb_writing import write_run
from tests.tracking.offline import in_full, read_run
from tests.tracking.server import Server
from tests.tracking.test_online import server
from tests.tracking.test_tracking import config

__all__ = ["server"]
pytestmark = pytest.mark.usefixtures("wandb_at_home")
LINES = 40


@pytest.fixture
def timed(sweep: Path) -> Path:
    """Members' steps are a second apart, but for one of which nobody noted it."""
    for folder in sweep.glob("*-x16"):
        if folder.name == "topk-k_12-x16":
            continue
        lines = [{"step": step * 100, "time": 1.7e9 + step} for step in range(LINES)]
        (folder / "times.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pace = [{"step": step, "time": 1.7e9 + step, "tokens": 100 * step, "memory_gb": 0.5} for step in range(3)]
    (sweep / "pace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in pace))
    return sweep


def test_a_run_written_as_wandb_writes_it(timed: Path, tmp_path: Path) -> None:
    runs = {past.run.name: past for past in past_runs(timed, config("online"))}
    assert len(runs) == 16 + 1
    file = write_run(tmp_path, timed, runs["gated-l1_0.0006-x16"], config("online"))
    run = read_run(file)
    assert (run["name"], run["group"], run["job_type"]) == ("gated-l1_0.0006-x16", "sweep", "train")
    assert run["config"]["architecture"] == "gated"
    assert run["config"]["sparsity_value"] == 6e-4
    assert run["axes"] == {"tokens": "", "*": "tokens"}
    history = run["history"]
    assert [row["_step"] for row in history] == [*range(0, 100 * LINES, 100), 100 * (LINES - 1) + 1]
    assert [row["_runtime"] for row in history[:-1]] == list(range(LINES))
    assert [row["_timestamp"] for row in history[:-1]] == [1.7e9 + step for step in range(LINES)]
    assert history[0].keys() >= {"train/loss", "train/l0", "tokens"}
    assert history[-1]["eval/l0"] == run["summary"]["eval/l0"]
    assert run["exit"] == 0
    assert in_full(file) == history


def test_a_sweep_is_sent_whatever_was_tracked(timed: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["upload", str(timed), "tracking.project=theirs"]) == 0
    assert f"wandb: sent 17 runs of {timed} to project theirs" in capfd.readouterr().err
    assert len(server.runs) == 17
    for name, kept in {run.bucket["displayName"]: run for run in server.runs.values()}.items():
        steps = [row["_step"] for row in kept.rows]
        assert steps == sorted(set(steps)), name
        assert len(steps) == (LINES + 1 if name != timed.name else 3 + (len(steps) > 3))
        assert kept.bucket["project"] == "theirs"
    one = server.named("topk-k_24-x16")
    assert one.rows[5]["_timestamp"] == 1.7e9 + 5
    assert one.summary["eval/l0"] == one.rows[-1]["eval/l0"]
    members = [kept for kept in server.runs.values() if kept.bucket["jobType"] == "train"]
    del members[0].history[LINES], members[0].history[LINES - 1]  # a server that broke off
    assert main(["upload", str(timed)]) == 0, "it sends what is not there"
    for kept in members:
        assert [row["_step"] for row in kept.rows] == sorted({row["_step"] for row in kept.rows})
    assert [len(kept.rows) for kept in members] == [LINES + 1] * 16


def test_a_sweep_that_cannot_be_sent(
    timed: Path, server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.mood = "refuses"
    assert main(["upload", str(timed)]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("sae-sweep: ")]
    assert line.startswith("sae-sweep: error: upload: ")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert main(["upload", str(timed)]) == 2
    assert "sae-sweep: error: upload: http://127.0.0.1:9 does not answer\n" in capfd.readouterr().err
    for word, said in (
        ("tracking.project=[", "tracking.project=[: the value cannot be read (expected the node content, but found"),
        ("tracking.project=[a]", "tracking.project=[a] is not text (quote it) or null"),
        ("tracking.mode=offline", "tracking.mode=offline: upload sends what is on disk to a server; leave it out"),
        ("tracking.mode=bogus", "tracking.mode=bogus is not one of online, offline"),
    ):
        assert main(["upload", str(timed), word]) == 2
        assert f"sae-sweep: error: {said}" in capfd.readouterr().err
    assert main(["upload", str(timed), "training.lr=1"]) == 2
    assert "training.lr=1: takes a sweep's folder, and of keys tracking.mode=" in capfd.readouterr().err


def test_where_it_is_sent(timed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of the command, else the environment, else what it was trained with."""
    label = next(timed.glob("*-x16"))
    for folder in timed.glob("*-x16"):
        (folder / "config.yaml").write_text("tracking: {project: trained, entity: us, group: g, tags: [a, b]}")
    assert label.is_dir()
    asked = asked_of(timed, ["tracking.group=mine"])
    assert (asked.project, asked.entity, asked.group, asked.tags) == ("trained", "us", "mine", ["a", "b"])
    monkeypatch.setitem(os.environ, "WANDB_PROJECT", "variable")
    assert asked_of(timed, []).project == "variable"
    assert asked_of(timed, ["tracking.project=word"]).project == "word"


def test_members_with_damaged_files_are_left_out(timed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And said; a config that is none gives way to that of sweep.json."""
    cut, torn, other, strange = sorted(timed.glob("*-x16"))[:4]
    (cut / "metrics.jsonl").write_text('{"step": 0, "loss": 1}\n{"step": 4, "lo')
    (torn / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    (other / "sae_weights.safetensors").write_bytes(b"damaged")
    (strange / "provenance.json").write_text('{"config": {"sae": 3}}')
    (strange / "config.yaml").write_bytes(b"\xff: [")
    runs = list(past_runs(timed, config("online")))
    assert len(runs) == 16 + 1 - 3
    told = [line for line in capfd.readouterr().err.splitlines() if "left out" in line]
    said = {line.split(":")[1].strip(): line for line in told}
    assert said.keys() == {cut.name, torn.name, other.name}
    assert f"{cut / 'metrics.jsonl'}: line 2 is damaged" in said[cut.name]
    assert next(past.run for past in runs if past.run.name == strange.name).config["architecture"]
