"""Checkpoints that are written while training goes on: members are copied as they are, and a thread writes the copies.

On a GPU copies go to pinned memory in the order of the steps, so that those after them change nothing of them, and no
step waits for the disk. On a CPU the cores are for steps: there a checkpoint is written between two of them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch

from sae_sweep.folder.checkpoints import Checkpoint
from sae_sweep.training.devices.flat import Flat, host_buffer
from sae_sweep.training.devices.waves import host_free
from sae_sweep.training.step.member import TrainedMember, write_tensors


class Savable(Protocol):
    """What a checkpoint writes of a member: it as it is, or a copy."""

    @property
    def finite(self) -> bool:
        """Whether its parameters are all numbers."""

    def save(self, file: Path) -> None:
        """Write its tensors. Raises OSError."""


class Copied:
    """A member as it was at one moment."""

    def __init__(self, member: TrainedMember) -> None:
        self._finite = member.finite
        tensors = member.tensors()
        flat, device = Flat(tensors), next(iter(tensors.values())).device
        self._tensors = flat.views(host_buffer(flat.nbytes, device))
        for name, tensor in tensors.items():
            self._tensors[name].copy_(tensor.detach(), non_blocking=True)

    @property
    def finite(self) -> bool:
        """Whether its parameters were all numbers."""
        return self._finite

    def save(self, file: Path) -> None:
        """Write its tensors. Raises OSError."""
        write_tensors(self._tensors, file)


class Aside:
    """The thread that writes; one checkpoint at a time."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._writing: Future[Checkpoint] | None = None

    def begin(self, write: Callable[[], Checkpoint]) -> None:
        """Write once what was copied so far is there; the one before has ended."""
        assert self._writing is None
        self._pool = self._pool or ThreadPoolExecutor(1, "checkpoint")
        copied = torch.cuda.Event() if torch.cuda.is_available() else None
        if copied is not None:
            copied.record(torch.cuda.current_stream())

        def written() -> Checkpoint:
            if copied is not None:
                copied.synchronize()
            return write()

        self._writing = self._pool.submit(written)

    def end(self) -> Checkpoint | None:
        """Wait for the checkpoint that is being written; None where there is none. Raises what writing it raised."""
        writing, self._writing = self._writing, None
        return None if writing is None else writing.result()


def pays(members: Sequence[TrainedMember]) -> bool:
    """Whether members are on a GPU, or wait beside one, and the host has room for a copy of them."""
    tensors = [tensor for member in members for tensor in member.tensors().values()]
    free = host_free()
    return all(member.on_gpu for member in members) and (free is None or sum(t.nbytes for t in tensors) <= free)
