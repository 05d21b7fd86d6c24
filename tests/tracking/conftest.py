"""A finished sweep's folder, and a home for wandb's own files."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sae_sweep.host import network
from tests.reporting.conftest import write_sweep
from tests.tracking.offline import settle


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "gated_vs_topk", lines=40)


@pytest.fixture
def wandb_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home" / name))
    network.answers.cache_clear()
    yield
    if "wandb" in sys.modules:
        settle()
