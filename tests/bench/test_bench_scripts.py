"""What the benchmark scripts share, and step.py; how fast anything is, no test asks."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.bench import scaling, step, sweep
from scripts.bench.measure import Results, interleaved, medians, ratio
from scripts.bench.peers.client import Environment, Unavailable, Worker

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
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The JSON and the table of a quick run."""
    out = tmp_path_factory.mktemp("bench") / "deep" / "step.json"
    done = run_step("--only", "standard,topk", "--out", str(out))
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


def cases(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [case for entry in found["architectures"].values() for case in entry["cases"]]


def test_step_measures_every_case_asked_for(quick: tuple[dict[str, Any], str]) -> None:
    found, table = quick
    assert [(case["architecture"], case["l0_asked"], case["dead_share"]) for case in cases(found)] == [
        ("standard", 8, 0.0),
        ("standard", 24, 0.0),
        ("topk", 8, 0.0),
        ("topk", 8, 0.25),
        ("topk", 24, 0.0),
    ]
    assert table.count("topk") == 3
    facts = {"cpu", "bfloat16", "cores", "threads", "torch", "device", "load_average", "commit"}
    for entry in found["architectures"].values():
        assert facts <= entry["machine"].keys()
        assert entry["settings"]["width"] == 128


def test_step_ratios_are_those_of_its_medians(quick: tuple[dict[str, Any], str]) -> None:
    for case in cases(quick[0]):
        times = case["milliseconds"]
        assert set(case["rounds_seconds"]) == set(times) == {"encoder", "adam", "ours"}
        assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in case["rounds_seconds"].values())
        assert case["ratios"]["step_per_encoder"] == pytest.approx(times["ours"] / times["encoder"])
        floor = (times["encoder"] + times["adam"]) / times["encoder"]
        assert case["ratios"]["floor_per_encoder"] == pytest.approx(floor)


def test_step_is_timed_at_the_l0_asked_for(quick: tuple[dict[str, Any], str]) -> None:
    for case in cases(quick[0]):
        assert case["l0"] == pytest.approx(case["l0_asked"], rel=0.1)


@pytest.mark.evidence
def test_a_step_can_be_measured_without_bfloat16(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    done = run_step("--only", "standard", "--without-bfloat16", "--out", str(out))
    assert done.returncode == 0, done.stderr
    entry = json.loads(out.read_text())["architectures"]["standard"]
    assert not entry["machine"]["bfloat16"]
    assert len(entry["cases"]) == 2


@pytest.mark.parametrize(
    ("script", "arguments", "reason"),
    [
        (step, ["--only", "topk,relu"], "no relu among"),
        (sweep, ["--only", "matryoshka"], "no matryoshka among"),
        (sweep, ["--peers", "sae-lens,sparsify"], "--peers: no sparsify among sae-lens, dictionary_learning"),
        (sweep, ["--values", "8,16"], "--values: means something else for each architecture; name one with --only"),
        (sweep, ["--only", "topk", "--values", "8,16", "--few", "2"], "must be at least 0 and below the number of"),
        (sweep, ["--only", "jumprelu", "--values", "8,16"], "--l0-coefficients: must be as many as --values, 2"),
        (scaling, ["--skip", "memory,layers"], "--skip: no layers among members, width, d, l0, tokens, memory"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    script: Any, arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.parsed(arguments)
    assert reason in capsys.readouterr().err


def test_a_finished_sweep_would_not_be_timed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "topk-ours-8-0").mkdir()
    with pytest.raises(SystemExit, match="2"):
        sweep.parsed(["--only", "standard,topk", "--work", str(tmp_path)])
    said = capsys.readouterr().err
    assert "--work: " in said
    assert "topk-ours-8-0 is there already" in said
    assert sweep.parsed(["--only", "standard", "--work", str(tmp_path)]).work == tmp_path


def test_all_architectures_are_measured_and_auxk_where_it_is() -> None:
    asked = step.parsed(["--high-warm", "50", "--no-peers"])
    found = [step.trainings(name, asked) for name in ("gated", "topk", "matryoshka")]
    assert [[(t.architecture, t.l0, t.warm, t.dead_shares) for t in own] for own in found] == [
        [("gated", 32, 600, (0.0,)), ("gated", 200, 50, (0.0,))],
        [("topk", 32, 600, (0.0, 0.25)), ("topk", 200, 50, (0.0,))],
        [("matryoshka", 32, 600, (0.0,))],
    ]


def test_results_of_other_architectures_stay(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "step.json"
    Results("step", out).add("topk", {"commit": "old"})
    Results("step", out).add("gated", {"commit": "old"})
    Results("step", out).add("topk", {"commit": "new"})
    kept = {"topk": {"commit": "new"}, "gated": {"commit": "old"}}
    assert json.loads(out.read_text()) == {"benchmark": "step", "architectures": kept}


@pytest.mark.parametrize("script", [step, sweep, scaling])
def test_a_file_of_something_else_is_not_added_to(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "other.json"
    for text, reason in (("{}", "holds no results of"), ("[1]", "holds no results of"), ("{", "cannot be added to")):
        out.write_text(text)
        with pytest.raises(SystemExit, match="2"):
            script.parsed(["--out", str(out)])
        assert f"--out: {out} {reason}" in capsys.readouterr().err
        assert out.read_text() == text


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
