"""The README's commands, run as they stand, but for the budgets: minutes become seconds."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines() if line
]
BUDGET = (
    *("training.tokens=4e3", "training.batch_size=256", "evaluation.tokens=2e3", "tracking=none"),
    *("data.block_rows=32", "data.context=32"),
)


def arguments_of(command: str, model: Path, text: Path) -> list[str]:
    """The words after `sae-sweep`, with placeholders filled in, and a small budget where something is trained."""
    filled = command.replace("MODEL_FOLDER", str(model)).replace("TEXT_FILE", str(text))
    program, *words = shlex.split(filled)
    assert program == "sae-sweep"
    trains = words[0] not in ("report", "status", "--help") and "dry_run=true" not in words
    return [*words, *BUDGET] if trains else words


def test_every_command_works_in_the_order_of_the_page(sae_sweep, llama_folder, text_file, tmp_path):
    assert len(COMMANDS) >= 7
    for command in COMMANDS:
        done = sae_sweep(*arguments_of(command, llama_folder, text_file))
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (tmp_path / "outputs" / "mine" / "report.html").exists()
    assert not (tmp_path / "outputs" / "wide").exists()  # a dry run


def test_make_demo_runs_the_demo_experiment(sae_sweep, tmp_path):
    recipe = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = next(line for line in recipe.splitlines() if "sae-sweep" in line)
    done = sae_sweep(*command.split()[1:], *BUDGET)
    assert done.returncode == 0, done.stderr
    assert "outputs/demo/report.html" in done.stdout
    assert "outputs/demo/pareto.json" in done.stdout
    rows = [line for line in done.stdout.splitlines() if re.match(r"(gated|standard|standard_april|topk)-", line)]
    assert len(rows) == 16


@pytest.mark.parametrize("target", re.findall(r"`make ([\w.-]+)`", README))
def test_make_targets_exist(target):
    subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True)


def test_files_named_exist():
    folders = ("", "sae_sweep", "sae_sweep/launch", "sae_sweep/evaluation")
    named = set(re.findall(r"`((?:[\w-]+/)*[\w.-]+\.py|configs/[\w/]*|(?:[\w-]+/)+)`", README))
    assert len(named) > 20
    assert [name for name in named if not any((ROOT / folder / name).exists() for folder in folders)] == []


def test_config_keys_named_exist():
    from sae_sweep.config.reading import known_keys

    keys = set(re.findall(r"\b((?:model|site|data|sae|training|evaluation|tracking)\.[a-z_0-9]+)\b", README))
    files = {"data.py", "config.py"}
    assert keys - set(known_keys()) - files == set()
