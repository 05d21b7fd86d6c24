"""The real command, as a user runs it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "sae-sweep"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sae_sweep(tmp_path: Path) -> Run:
    """Runs `sae-sweep` in an empty folder, offline, with one thread."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_SILENT": "true"}
        return subprocess.run(
            [str(COMMAND), *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred kilobytes of English prose that every Python has: the standard library's longest docstrings."""
    import argparse
    import collections
    import decimal
    import inspect
    import logging
    import typing

    file = tmp_path_factory.mktemp("text") / "documents.txt"
    modules = (argparse, collections, decimal, inspect, logging, typing)
    file.write_text("\n\n".join(inspect.getsource(module) for module in modules), encoding="utf-8")
    return file
