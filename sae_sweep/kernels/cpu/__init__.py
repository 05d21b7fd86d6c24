"""What serves a CPU: loops that numba compiles. It is loaded where a CPU computes, and nowhere else."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """A module of this folder, when it is first asked for."""
    if name.startswith("_"):
        raise AttributeError(name)
    return import_module(f"{__name__}.{name}")
