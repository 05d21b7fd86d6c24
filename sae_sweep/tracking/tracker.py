"""Curves of a group's members: metrics.jsonl always, wandb beside it when asked.

metrics.jsonl is the truth. wandb cannot take a line back, so it is told of a step only once a checkpoint that covers
it is on disk; and it is brought up to date from metrics.jsonl when a member goes on, by what it says it has. A kill
at any point then neither loses a line nor logs one twice.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import TrackingConfig
from sae_sweep.config.values import finite
from sae_sweep.folder.files import replacing, sync
from sae_sweep.folder.names import CURVES
from sae_sweep.tracking.wandb_runs import WandbRuns


@dataclass(frozen=True)
class TrackedMember:
    """What tracking needs to know of a member."""

    label: str
    identity: str
    config: Mapping[str, Any]
    """The resolved config, nested."""


class Tracker:
    """Follows the members of one group. wandb's troubles never reach training: told once, and it is dropped."""

    def __init__(
        self, sweep_folder: Path, sweep_name: str, config: TrackingConfig, members: Sequence[TrackedMember]
    ) -> None:
        self._folder = sweep_folder
        self._labels = [member.label for member in members]
        for member in members:
            (sweep_folder / member.label).mkdir(parents=True, exist_ok=True)
        self._wandb: WandbRuns | None = None
        self._waiting: dict[str, list[dict[str, Any]]] = {member.label: [] for member in members}
        """Lines that wandb has not been told."""
        if config.mode != "none":
            self._wandb = WandbRuns(sweep_folder, sweep_name, config)
            for member in members:
                last = self._wandb.begin(member.label, member.identity, member.config)
                self._waiting[member.label] = [line for line in self._lines(member.label) if line["step"] > last]

    def log(self, label: str, step: int, tokens: int, values: Mapping[str, float | None]) -> None:
        """Append one line to the member's metrics.jsonl; values that are not finite are null.

        Raises OSError where the disk takes no more; the file is then as it was.
        """
        line = {"step": step, "tokens": tokens} | {key: finite(value) for key, value in values.items()}
        _append(self._folder / label / CURVES, (json.dumps(line, allow_nan=False) + "\n").encode())
        if self._wandb is not None:
            self._waiting[label].append(line)

    def sync(self) -> dict[str, int]:
        """See that all lines are on disk; the bytes of each member's file, by label."""
        sizes = {}
        for label in self._labels:
            file = self._folder / label / CURVES
            sizes[label] = file.stat().st_size if file.exists() else 0
            if sizes[label]:
                sync(file)
        return sizes

    def covered(self, steps: Mapping[str, int]) -> None:
        """A checkpoint with these members at these steps is on disk. What is logged of the step to come may still grow
        (held-out metrics), so it waits."""
        for label, step in steps.items():
            self._tell(label, [line for line in self._waiting[label] if line["step"] < step])

    def finish(self, label: str, metrics: Mapping[str, Any]) -> None:
        """The member is done: its final metrics become its wandb run's summary."""
        if self._wandb is not None:
            self._tell(label, self._waiting[label])
            self._wandb.end(label, metrics, exit_code=0)

    def fail(self, label: str, reason: str) -> None:
        """The member will not be finished."""
        if self._wandb is not None:
            self._tell(label, self._waiting[label])
            self._wandb.end(label, {"failed": reason}, exit_code=1)

    def close(self) -> None:
        """End what is still open (a run that was interrupted), and say how offline runs are uploaded."""
        if self._wandb is not None:
            self._wandb.close()

    def _tell(self, label: str, lines: Sequence[dict[str, Any]]) -> None:
        for line in lines:
            if self._wandb is not None:
                self._wandb.log(label, line["step"], {key: value for key, value in line.items() if key != "step"})
        self._waiting[label] = self._waiting[label][len(lines) :]

    def _lines(self, label: str) -> list[dict[str, Any]]:
        file = self._folder / label / CURVES
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def cut_back(file: Path, size: int) -> bool:
    """Make metrics.jsonl what it was when it had `size` bytes; False where it has lost some since.

    It appears whole: a reader, or who comes after a kill, finds the one or the other.
    """
    there = file.stat().st_size if file.exists() else 0
    if size == 0:
        file.unlink(missing_ok=True)
    elif there > size:
        with file.open("rb") as opened:
            kept = opened.read(size)
        with replacing(file) as temporary:
            temporary.write_bytes(kept)
    return there >= size


def _append(file: Path, line: bytes) -> None:
    # Opened for each line, not kept: a resumed run may have put a shortened file in its place.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    before = os.fstat(descriptor).st_size
    try:
        while line:  # a disk with room for a part takes that part
            line = line[os.write(descriptor, line) :]
    except OSError as error:
        os.ftruncate(descriptor, before)
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        os.close(descriptor)
