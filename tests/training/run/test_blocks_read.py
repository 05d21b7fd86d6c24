"""How much of the stream a run reads: what it trains on, and no block twice."""

import os
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.config.files import config_of
from sae_sweep.launch.local import run_sweep
from sae_sweep.model import together
from sae_sweep.model.language_model import LanguageModel, Passes

FORWARDS, HELD_OUT = 4, 3
"""Of 8 rows, in a block of 32, and in 20 rows that are held out."""
LONGEST = 5
"""Blocks of 480 counted positions that 31 steps of 64 touch, at 7 a block."""
FIXED, STEERED = ["sae=topk", "sae.l0=3"], ["sae=gated", "sae.l0=3"]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Passes]:
    """Of each model that is loaded, in order."""
    found: list[Passes] = []
    real = together.load_model

    def load(*arguments: Any) -> LanguageModel:
        made = real(*arguments)
        found.append(made.passes)
        return made

    monkeypatch.setattr(together, "load_model", load)
    return found


@pytest.mark.parametrize(
    ("members", "blocks"),
    [
        ([FIXED], LONGEST),
        ([STEERED], LONGEST + 1),
        ([FIXED, [*STEERED, "training.tokens=1e3"]], LONGEST),  # it is corrected on a block that the other trains on
        ([FIXED, STEERED, [*STEERED, "training.tokens=1e3"]], LONGEST + 1),
    ],
)
def test_blocks_read_are_those_that_steps_touch(
    members: list[list[str]], blocks: int, passes: list[Passes], llama_folder: Path, tmp_path: Path
) -> None:
    shared = (
        *("model=local", f"model.path={llama_folder}", "data=text", f"data.path={os.__file__}", "data.context=16"),
        *("data.block_rows=32", "data.rows_per_forward=8", "data.bos=never", "tracking=none", "sae.width=40"),
        *("training.batch_size=64", "training.tokens=2e3", "evaluation.tokens=320", "model.device=cpu"),
        *("site.layer=1", f"output_dir={tmp_path}", "data.max_norm_ratio=null"),
    )
    outcomes = run_sweep([config_of([*shared, *own]) for own in members])
    assert {outcome.state for outcome in outcomes} == {"finished"}
    (made,) = passes
    assert (made.harvest, made.clean) == (blocks * FORWARDS, HELD_OUT)
