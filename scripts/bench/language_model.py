"""The language model that `sweep.py` reads activations from: a small one made for it once, or any folder."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.measure import ROOT

SHIPPED = "demo"
SHIPPED_FOLDER = ROOT / "sae_sweep" / "assets" / "demo_lm"
SMALL = ROOT / "outputs" / ".bench" / "lm64"
SMALL_ARGUMENTS = ("--width", "64", "--mlp", "192", "--layers", "2", "--heads", "2", "--steps", "4000")
"""Three to five minutes on two cores."""


@dataclass(frozen=True)
class LanguageModel:
    """A folder in Hugging Face layout, and the block whose output is the site."""

    folder: Path
    layer: int

    @property
    def d(self) -> int:
        """Numbers per activation."""
        return int(json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["hidden_size"])

    @property
    def overrides(self) -> list[str]:
        """How our command is told of it."""
        return ["model=demo"] if self.folder == SHIPPED_FOLDER else ["model=local", f"model.path={self.folder}"]


def named(model: str, layer: int | None) -> LanguageModel:
    """`demo` is the model that ships, at block 2; else a folder, at block 0."""
    if model == SHIPPED:
        return LanguageModel(SHIPPED_FOLDER, 2 if layer is None else layer)
    return LanguageModel(Path(model).resolve(), 0 if layer is None else layer)


def make(folder: Path) -> None:
    """Train the small model into `folder`. Raises CalledProcessError."""
    print(f"{folder} is missing: training a small language model there, once, for some minutes", file=sys.stderr)
    script = ROOT / "scripts" / "train_demo_lm.py"
    subprocess.run([sys.executable, str(script), "--out", str(folder), *SMALL_ARGUMENTS], check=True, cwd=ROOT)
