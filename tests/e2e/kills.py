"""Ending the real command at chosen moments, and comparing what it leaves with what one that was left alone does."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from time import monotonic, sleep

COMMAND = Path(sys.executable).parent / "sae-sweep"
WALL_CLOCK = ("log.txt", "provenance.json", "report.html", "times.jsonl", "pace.jsonl")
"""What may differ: it says when."""
PATIENCE = 300.0
"""Seconds to wait for a moment that has to come."""

SWEEP = (
    *("model.device=cpu", "data.context=16", "data.block_rows=32", "data.rows_per_forward=16", "site.layer=1"),
    *("sae=gated,standard,batchtopk", "sae.l0=4", "sae.width=40", "training.batch_size=48", "training.lr=1e-2"),
    *("evaluation.tokens=320", "evaluation.every=2000", "tracking.log_every=4"),
)
"""Three architectures, steered, resampled and with a running threshold: 10 steps to a block, and 4 left-over rows."""


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`sae-sweep` in a folder, offline, with one thread."""
    return subprocess.Popen(
        [str(COMMAND), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_SILENT": "true", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it said."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out + err


def checkpoints(sweep: Path) -> int:
    """How many checkpoints there have been."""
    return max((int(path.name) for path in sweep.glob(".state/*/*") if path.name.isdecimal()), default=0)


def being_written(sweep: Path) -> bool:
    """Whether a checkpoint is."""
    return any(sweep.glob(".state/*/.*.tmp"))


def wait(process: subprocess.Popen[str], moment: Callable[[], bool]) -> bool:
    """Wait for a moment; False where the process ended before it."""
    end = monotonic() + PATIENCE
    while not moment():
        if process.poll() is not None:
            return False
        assert monotonic() < end, "the moment did not come"
        sleep(0.0005)
    return True


def ended_at(process: subprocess.Popen[str], sweep: Path, random: Random, number: int) -> bool:
    """Send a signal after a random number of further checkpoints, half the time in the middle of one; False where the
    process ended before it."""
    after, in_writing, delay = checkpoints(sweep) + random.randint(1, 9), random.random() < 0.5, 0.03 * random.random()
    if not wait(process, lambda: checkpoints(sweep) >= after and (not in_writing or being_written(sweep))):
        return False
    sleep(0 if in_writing else delay)
    process.send_signal(number)
    return True


def written(sweep: Path) -> Mapping[str, bytes]:
    """Every file of a sweep by its name, but for those that say when."""
    files = sorted(path for path in sweep.rglob("*") if path.is_file() and path.name not in WALL_CLOCK)
    return {str(path.relative_to(sweep)): path.read_bytes() for path in files}


def assert_same(sweep: Path, expected: Path) -> None:
    """Bit for bit, file by file."""
    found, wanted = written(sweep), written(expected)
    assert found.keys() == wanted.keys()
    different = [name for name, contents in wanted.items() if found[name] != contents]
    assert different == []


def other_rank(first: int) -> int:
    """The pid of the rank that the command with this pid has started."""
    (child,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return int(child)
