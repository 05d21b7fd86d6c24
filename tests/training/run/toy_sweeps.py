"""Sweeps on toy data that end in a second, and how they are disturbed."""

import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.launch.local import Outcome, run_sweep

SHARED = (
    *("data=toy", "data.toy.dimensions=24", "data.toy.latents=30", "data.toy.active=3", "data.context=16"),
    *("data.block_rows=32", "sae.width=40", "training.batch_size=48", "training.tokens=4e3", "training.lr=1e-2"),
    *("evaluation.tokens=320", "evaluation.every=1000", "tracking=none", "tracking.log_every=4", "model.device=cpu"),
)
GATED, STANDARD, TOPK = ("sae=gated", "sae.l0=3"), ("sae=standard", "sae.l0=3"), ("sae=topk", "sae.k=3")
SHORT = ("sae=topk", "sae.k=5", "training.tokens=1500")
WILD = ("sae=standard", "sae.l1=0.1", "training.lr=1e6", "training.lr_warmup_steps=0")


@cache
def config(*overrides: str) -> MemberConfig:
    return config_of([*SHARED, *overrides])


def sweep(folder: Path, *members: tuple[str, ...], also: tuple[str, ...] = ()) -> list[Outcome]:
    return run_sweep([config(f"output_dir={folder}", *also, *member) for member in members])


Alone = Callable[..., Path]
"""The folder of a sweep of these members that nothing stopped, with some overrides for all of them (`also`)."""


def forget_config(root: Path) -> Path:
    """config.yaml states the output_dir, which differs."""
    for file in root.glob("*/config.yaml"):
        file.unlink()
    return root


def strike(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int, act: Callable[[], None]) -> None:
    """Have something happen at the n-th call of a method, from 1."""
    real, calls = getattr(owner, name), iter(range(1, 1_000_000))

    def struck(*arguments: Any, **named: Any) -> Any:
        if next(calls) == call:
            act()
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, struck)


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
