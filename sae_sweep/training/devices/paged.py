"""A trainer whose tensors are on the host but for its turns."""

from typing import Any

import torch
from torch import Tensor

from sae_sweep.training.devices.flat import Flat, host_buffer
from sae_sweep.training.step.trainer import BankTrainer


class Paged:
    """A trainer that waits on the host, all its tensors in one buffer."""

    def __init__(self, trainer: BankTrainer):
        """Takes the trainer's tensors to the host."""
        self.trainer = trainer
        tensors = trainer.trained.tensors()
        self._flat = Flat(tensors)
        self.buffer_N = host_buffer(self._flat.nbytes, trainer.trained.device)
        """[bytes] uint8 in the host's memory."""
        self._host = self._flat.views(self.buffer_N)
        for name, tensor in tensors.items():
            self._host[name].copy_(tensor)
        self._numbers: list[dict[str, Any]] = []
        self._records = 0
        self.leave()

    @property
    def nbytes(self) -> int:
        """Of all its tensors, end to end."""
        return self._flat.nbytes

    def remember(self) -> None:
        """Note where the members are, for `go_back`."""
        self._numbers = [member.numbers() for member in self.trainer.members]
        self._records = len(self.trainer.records)

    def come_in(self, there_N: Tensor) -> None:
        """Let its tensors be those of a buffer like its own, elsewhere."""
        self.trainer.trained.put(self._flat.views(there_N))

    def visit(self) -> None:
        """Have a copy of its tensors on the device, until it leaves."""
        self.come_in(self.buffer_N.to(self.trainer.trained.device, non_blocking=True, copy=True))

    def leave(self) -> None:
        """Let its tensors be those on the host."""
        self.trainer.trained.put(self._host)

    def look(self) -> None:
        """Whether members are finite is looked at on the device, which is many times as fast."""
        for member in self.trainer.members:
            if member.running:
                _ = member.finite

    def go_back(self) -> None:
        """Be what it was when it was told to remember."""
        self.leave()
        for member, numbers in zip(self.trainer.members, self._numbers, strict=True):
            member.load_numbers(numbers)
        del self.trainer.records[self._records :]

    def settle(self) -> BankTrainer:
        """The trainer with its tensors on the device for good."""
        self.visit()
        self._host, self.buffer_N = {}, torch.empty(0, dtype=torch.uint8)
        return self.trainer
