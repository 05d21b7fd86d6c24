"""What a shell is told that a word may become."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sae_sweep.cli import COMMANDS
from sae_sweep.launch.completion import completions

USAGES = {name: command.arguments for name, command in COMMANDS.items()}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sweeps in outputs/, one of them with a member; a folder of data."""
    for name in ("outputs/demo/topk-k_8-x4/cfg.json", "outputs/demo/sweep.json", "outputs/mine/sweep.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "data").mkdir()
    for name in ("a.txt", "b c.txt", ".hidden"):
        (tmp_path / "data" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sae-sweep status ", ["outputs/demo", "outputs/mine", "data/", "outputs/"]),
        ("sae-sweep status out", ["outputs/"]),
        ("sae-sweep report outputs/", ["outputs/demo", "outputs/mine"]),
        ("sae-sweep export outputs/demo/", ["outputs/demo/topk-k_8-x4"]),
        ("sae-sweep status outputs/demo ", []),
        ("sae-sweep status outputs/demo --", ["--json"]),
        ("sae-sweep eval outputs/demo --a", ["--analysis"]),
        ("sae-sweep eval outputs/demo --analysis ma", ["matching"]),
        ("sae-sweep eval outputs/demo --into da", ["data/"]),
        ("sae-sweep eval outputs/demo data.path=data/", ["data.path=data/a.txt"]),
        ("sae-sweep explain training.be", ["training.beta1", "training.beta2"]),
        ("sae-sweep explain experiment", ["experiment"]),
        ("sae-sweep cancel gone/", []),
    ],
)
def test_after_a_command(line: str, expected: list[str]) -> None:
    assert completions(line, USAGES) == (expected, False)


@pytest.mark.parametrize(
    ("line", "expected", "more"),
    [
        ("sae-sweep", list(USAGES), True),
        ("sae-sweep ", list(USAGES), True),
        ("sae-sweep st", ["status"], True),
        ("sae-sweep sae=topk st", [], True),
        ("sae-sweep model=local model.path=da", ["model.path=data/"], False),
        ("sae-sweep data.path=data/a", ["data.path=data/a.txt"], False),
        ("sae-sweep data.path=data/.h", ["data.path=data/.hidden"], False),
        ("sae-sweep data.path=~nobody_here/", [], False),
        ("sae-sweep sae.k=", [], True),
    ],
)
def test_of_a_sweep(line: str, expected: list[str], more: bool) -> None:
    assert completions(line, USAGES) == (expected, more)


def test_a_shell_is_told_of_commands_and_of_overrides() -> None:
    def told(line: str, point: int | None = None) -> list[str]:
        environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line) if point is None else point)}
        command = [sys.executable, "-m", "sae_sweep.cli", "-sc", "query=bash"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    assert {"status", "seed=", "sae=", "sae."} <= set(told("sae-sweep s"))
    assert told("sae-sweep status outputs/d sae=") == []
    assert told("sae-sweep status outputs/d sae=", len("sae-sweep status outputs/d")) == ["outputs/demo"]
