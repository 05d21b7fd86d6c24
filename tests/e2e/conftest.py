"""The real command, as a user runs it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.forked import run_forked

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sae_sweep(tmp_path: Path) -> Run:
    """Runs `sae-sweep` in an empty folder, offline, with one thread."""
    return lambda *arguments: run_forked(arguments, tmp_path)


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
