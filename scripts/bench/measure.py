"""What the benchmarks share: a clock, medians of rounds, the machine's facts, tables and JSON."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sae_sweep.launch.tables import print_table

ROOT = Path(__file__).resolve().parents[2]
SPIN_KEY = "GOMP_SPINCOUNT"


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(device),
        SPIN_KEY: os.environ.get(SPIN_KEY),
        "load_average": os.getloadavg(),
        "commit": _commit(),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str | None:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long `work` takes, until the device has finished it."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(subjects: Mapping[str, Callable[[int], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each subject in each round. A round asks all of them, one after the other, so that what else the
    machine does falls on all alike; one round before the first is not counted.

    A subject is told the number of the round, and answers with seconds.
    """
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for index in range(-1, rounds):
        for name, measure in subjects.items():
            took = measure(index + 1)
            if index >= 0:
                found[name].append(took)
    return found


def medians(rounds: Mapping[str, Iterable[float]]) -> dict[str, float]:
    return {name: median(values) for name, values in rounds.items()}


def ratio(value: float | None, base: float | None) -> float | None:
    """value / base, where there are both."""
    return None if value is None or not base else value / base


def shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print_table(title, header, rows, sys.stdout)
    sys.stdout.flush()


def write(out: Path | None, found: Mapping[str, Any]) -> None:
    """The JSON of `--out`."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
