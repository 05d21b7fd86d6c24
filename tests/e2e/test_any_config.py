"""Whatever is asked for, it is trained and ends well, or is refused in one line that names the key."""

import io
import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sae_sweep.cli import main
from sae_sweep.config.reading import known_keys
from tests.e2e.any_config import command_lines, merged, shared
from tests.e2e.evidence import record
from tests.e2e.told import refusal

GROUPS = ("site", "data", "tracking", "sae")
QUICK = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
Try = Callable[[list[str]], str]


@pytest.fixture
def attempt(
    tmp_path: Path, llama_folder: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch, count: Counter[str]
) -> Try:
    """Runs a command line in an empty folder and looks at what it did."""

    def run(words: list[str]) -> str:
        folder = Path(mkdtemp(dir=tmp_path))
        monkeypatch.chdir(folder)
        arguments = merged([*shared(llama_folder, text_file), *words])
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(arguments)
        check(folder, code, out.getvalue(), err.getvalue(), arguments)
        how = {0: "trained", 1: "diverged", 2: "refused"}[code]
        if code == 0 and "dry_run=true" in arguments:
            how = "planned"
        count[how] += 1
        return how

    return run


@pytest.fixture
def count() -> Counter[str]:
    return Counter()


def check(folder: Path, code: int, out: str, err: str, arguments: list[str]) -> None:
    """Raises AssertionError unless it ended in one of the ways it may."""
    told = f"{' '.join(arguments)}\n{err[-2000:]}"
    assert code in (0, 1, 2), told
    assert "Traceback" not in out + err, told
    left = [path for path in folder.rglob("*") if "kept" not in path.parts]
    assert [path for path in left if path.suffix == ".tmp"] == [], told
    if code == 2:
        assert re.fullmatch(r"sae-sweep: error: [^\n]+\n", refusal(err)), told
        keys = [*known_keys(), "training.learning_rate", "nonsense", *(f"{group}=" for group in GROUPS)]
        assert any(key in err for key in keys), told
        assert left == [], told
        return
    if left:
        judge_members(folder, code, told)


def judge_members(folder: Path, code: int, told: str) -> None:
    """Every member is finished and whole, or has diverged and is said to have."""
    (sweep,) = folder.glob("outputs/*/sweep.json")
    members: dict[str, Any] = json.loads(sweep.read_text())["members"]
    failed = {label: entry["reason"] for label, entry in members.items() if entry["state"] != "finished"}
    assert bool(failed) == (code == 1), told
    for label, reason in failed.items():
        assert reason.startswith(("it diverged: ", "resampling after step ")), (label, reason, told)
    for label in members.keys() - failed.keys():
        for name in ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors"):
            assert (sweep.parent / label / name).is_file(), told
        metrics = json.loads((sweep.parent / label / "metrics.json").read_text(), parse_constant=pytest.fail)
        assert metrics["tokens_trained"] > 0, told
    assert (sweep.parent / "pareto.json").is_file(), told


def test_twelve(attempt: Try, count: Counter[str]) -> None:
    @QUICK
    @given(words=command_lines())
    def holds(words: list[str]) -> None:
        attempt(words)

    holds()
    assert count["trained"] > 1, count
    assert count["refused"] > 1, count


@pytest.mark.evidence
def test_two_hundred(attempt: Try, count: Counter[str]) -> None:
    @settings(QUICK, derandomize=False, print_blob=True, max_examples=200)
    @given(words=command_lines())
    def holds(words: list[str]) -> None:
        attempt(words)

    holds()
    record("generated configs", dict(sorted(count.items())))
