"""What the benchmarks share: a clock, medians of rounds, the machine's facts, tables and the JSON of `--out`."""

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

from sae_sweep.folder.files import write_json_atomic
from sae_sweep.kernels.cpu import screening
from sae_sweep.launch.tables import print_table

ROOT = Path(__file__).resolve().parents[2]
SPIN_KEY = "GOMP_SPINCOUNT"


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on beside the code."""
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "bfloat16": screening.multiplies_bfloat16(),
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
        write_json_atomic(out, found)


class Results:
    """The JSON of `--out`, an entry per architecture. Entries that are there stay until they are measured anew, so a
    long benchmark can be made in parts; each says by itself which machine and commit it is from."""

    def __init__(self, benchmark: str, out: Path | None) -> None:
        """Raises ValueError where the file is another one."""
        self._out = out
        self._found: dict[str, Any] = {"benchmark": benchmark, "architectures": {}}
        if out is None or not out.exists():
            return
        try:
            there = json.loads(out.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{out} cannot be added to: {error}") from error
        if not isinstance(there, dict) or there.get("benchmark") != benchmark:
            raise ValueError(f"{out} holds no results of {benchmark}.py to add to; name another file")
        self._found = there

    def entry(self, architecture: str) -> dict[str, Any] | None:
        """What is there of it."""
        return self._found["architectures"].get(architecture)

    def add(self, architecture: str, entry: Mapping[str, Any]) -> None:
        """Written at once: what was measured is kept if the next architecture fails."""
        self._found["architectures"][architecture] = entry
        write(self._out, self._found)
