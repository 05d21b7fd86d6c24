"""Where nobody is at a terminal, too, a command says something before it brings in what takes seconds."""

import subprocess
import sys
from pathlib import Path

SLOW = ("torch", "transformers", "plotly", "pandas", "wandb", "datasets", "scipy", "sklearn")
PROGRAM = f"""
import sys
from importlib.abc import MetaPathFinder

class Teller(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in {SLOW}:
            print("IMPORT", name, file=sys.stderr, flush=True)

sys.meta_path.insert(0, Teller())
from sae_sweep.cli import main
sys.exit(main(sys.argv[1:]))
"""
SMALL = ("data=toy", "sae=topk", "sae.k=2", "training.tokens=1e3", "training.batch_size=256", "evaluation.tokens=300")


def told(folder: Path, *arguments: str) -> list[str]:
    """Lines of standard output and error of a command whose both are one pipe, and of what it imports."""
    line = [sys.executable, "-c", PROGRAM, *SMALL, "data.toy.latents=32", "sae.width=32", "tracking=none", *arguments]
    done = subprocess.run(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    return done.stdout.splitlines()


def test_a_sweep_on_a_pipe(tmp_path: Path) -> None:
    """What is refused says one line and no more, so the first words come once all is planned."""
    lines = told(tmp_path, "name=it")
    assert lines[0] == "it: loading torch"
    assert "IMPORT torch" in lines


def test_a_plan_on_a_pipe(tmp_path: Path) -> None:
    lines = told(tmp_path, "name=it", "dry_run=true", "launcher.device_flops=1e12")
    assert lines[0] == "outputs/it: 1 member in 1 group of one pass each, 1 bank; 0 finished already"
    assert not [line for line in lines if line.startswith("IMPORT")]
