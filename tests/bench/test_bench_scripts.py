"""The benchmark scripts run and say what they promise; how fast anything is, no test asks."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import step as step_script
from scripts.bench import sweep as sweep_script
from scripts.bench.measure import interleaved, medians, ratio
from scripts.bench.peers.client import Environment, Unavailable, Worker
from scripts.bench.step import trainings
from scripts.bench.sweep import matched
from scripts.bench.sweeps import Run

ROOT = Path(__file__).resolve().parents[2]
ECHO = """
from collections.abc import Mapping
from typing import Any
import torch
from scripts.bench.peers.protocol import Cannot, serve

class Echo:
    def __init__(self, request, weights):
        print("a library talks")
        if request["architecture"] != "topk":
            raise Cannot("it has topk alone")
        self.dead = 0.0
    def silence(self, share):
        self.dead = share
    def step(self, x_BD):
        return torch.tensor([x_BD.sum() + self.dead])
    def l0(self, fired):
        return float(fired)

serve("echo", "1", Echo)
"""


def run_step(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "scripts" / "bench" / "step.py"
    command = [sys.executable, str(script), "--quick", "--no-peers", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def step(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The JSON and the table of a quick run."""
    out = tmp_path_factory.mktemp("bench") / "deep" / "step.json"
    done = run_step("--only", "standard,topk", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


def test_step_measures_every_case_asked_for(step: tuple[dict[str, Any], str]) -> None:
    found, table = step
    cases = [(case["architecture"], case["l0_asked"], case["dead_share"]) for case in found["cases"]]
    assert cases == [
        ("standard", 8, 0.0),
        ("topk", 8, 0.0),
        ("topk", 8, 0.25),
        ("standard", 24, 0.0),
        ("topk", 24, 0.0),
    ]
    assert table.count("topk") == 3
    assert {"cpu", "cores", "threads", "torch", "device", "load_average"} <= found["machine"].keys()
    assert found["settings"]["width"] == 128


def test_step_ratios_are_those_of_its_medians(step: tuple[dict[str, Any], str]) -> None:
    for case in step[0]["cases"]:
        times = case["milliseconds"]
        assert set(case["rounds_seconds"]) == set(times) == {"encoder", "adam", "ours"}
        assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in case["rounds_seconds"].values())
        assert case["ratios"]["step_per_encoder"] == pytest.approx(times["ours"] / times["encoder"])
        floor = (times["encoder"] + times["adam"]) / times["encoder"]
        assert case["ratios"]["floor_per_encoder"] == pytest.approx(floor)


def test_step_is_timed_at_the_l0_asked_for(step: tuple[dict[str, Any], str]) -> None:
    for case in step[0]["cases"]:
        assert case["l0"] == pytest.approx(case["l0_asked"], rel=0.1)


def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for script, arguments, reason in (
        (step_script, ["--only", "topk,relu"], "no relu among"),
        (sweep_script, ["--only", "jumprelu"], "no jumprelu among"),
        (sweep_script, ["--few", "2", "--k", "8,16"], "--few: must be at least 1 and below the number of members, 2"),
    ):
        with pytest.raises(SystemExit, match="2"):
            script.parsed(arguments)
        assert reason in capsys.readouterr().err


def test_all_architectures_are_measured_and_auxk_where_it_is() -> None:
    asked = trainings(["topk", "gated", "matryoshka"], 32, 200, 0.25)
    assert [(t.architecture, t.l0, t.dead_shares) for t in asked] == [
        ("gated", 32, (0.0,)),
        ("topk", 32, (0.0, 0.25)),
        ("matryoshka", 32, (0.0,)),
        ("gated", 200, (0.0,)),
        ("topk", 200, (0.0,)),
    ]


def test_subjects_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[tuple[str, int]] = []

    def subject(name: str, scale: float) -> Any:
        def measure(index: int) -> float:
            calls.append((name, index))
            return scale * index

        return measure

    rounds = interleaved({"a": subject("a", 1), "b": subject("b", 10)}, 3)
    assert calls == [(name, index) for index in range(4) for name in "ab"]
    assert rounds == {"a": [1, 2, 3], "b": [10, 20, 30]}
    assert medians(rounds) == {"a": 2, "b": 20}
    assert ratio(20, 2) == 10
    assert ratio(None, 2) is None


def test_a_worker_answers_beside_what_libraries_print(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "echo.py").write_text(ECHO)
    save_file({"W_enc": torch.ones(2, 2)}, tmp_path / "weights.safetensors")
    save_file({str(i): torch.full((2, 2), float(i)) for i in range(3)}, tmp_path / "batches.safetensors")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    worker = Worker(_SameInterpreter("echo", tmp_path, tmp_path / "echo.py", ""))
    opening = {"do": "open", "folder": str(tmp_path), "device": "cpu", "threads": 1}
    try:
        assert worker.facts["name"] == "echo"
        with pytest.raises(Unavailable, match="topk alone"):
            worker.ask({**opening, "architecture": "gated"})
        assert worker.ask({**opening, "architecture": "topk"}) == {"threads": 1}
        answer = worker.ask({"do": "step", "batch": 5, "dead_share": 0.5})
        assert answer["l0"] == 2 * 4 + 0.5
        assert answer["seconds"] > 0
        with pytest.raises(Unavailable, match="KeyError"):
            worker.ask({"do": "step", "batch": 5})
    finally:
        worker.close()


class _SameInterpreter(Environment):
    @property
    def python(self) -> Path:
        return Path(sys.executable)


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_library\n")
    with pytest.raises(Unavailable, match="No module named 'no_such_library'"):
        Worker(_SameInterpreter("broken", tmp_path, tmp_path / "broken.py", ""))
    with pytest.raises(Unavailable, match="is missing"):
        Worker(Environment("none", tmp_path / "none", tmp_path / "broken.py", ""))


def test_both_sides_are_compared_where_both_have_points() -> None:
    ours = [{"member": str(l0), "l0": l0, "ce_recovered": l0 / 100} for l0 in (4.0, 16.0, 64.0)]
    peer = [{"member": str(l0), "l0": l0, "ce_recovered": l0 / 200} for l0 in (16.0, 64.0, 90.0)]
    rows = matched({"ours": ours, "sae-lens": peer})
    assert [row["l0"] for row in rows] == pytest.approx([16, 22.627, 32, 45.255, 64], rel=1e-4)
    assert rows[0] == {"l0": 16, "ours": pytest.approx(0.16), "sae-lens": pytest.approx(0.08)}
    assert all(row["ours"] == pytest.approx(2 * row["sae-lens"]) for row in rows)
    assert matched({"ours": ours}) == []
    assert matched({"ours": ours[:1], "sae-lens": peer}) == []


def test_quarters_of_a_run_are_between_its_marks() -> None:
    marks = {"begin": 10.0, "steps": [14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 19.5, 20.0], "end": 21.0}
    run = Run(30.0, marks, Path("unused"))
    assert run.training == 11
    assert run.quarter(last=False) == 2.5
    assert run.quarter(last=True) == 0.5
