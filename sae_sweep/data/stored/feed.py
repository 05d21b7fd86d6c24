"""Activations that no model of ours gave, as training and judging ask for them."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Some rows of activations. On the CPU."""

    activations_RTD: Tensor
    """In the dtype of the file, or float32 for bfloat16."""
    tokens_RT: Tensor
    """int64; 0 where the file has none."""
    counted_RT: Tensor
    """bool."""


class Feed(Protocol):
    """Activations to judge and to train on, that no model of ours gave."""

    label: str
    """What messages call the training source."""
    width: int
    """Numbers of an activation."""
    replays: bool
    """Whether a block can be had again, so that training can go on from a checkpoint."""

    @property
    def heldout_rows(self) -> int:
        """How many rows are held out."""

    def heldout(self, first: int, stop: int) -> Rows:
        """Some of them."""

    def block(self, index: int) -> tuple[Rows, int]:
        """The rows of a block to train on, and the epoch of its first. Raises ConfigError where it cannot be had."""

    def account(self, blocks: int) -> str:
        """What became of the activations when so many blocks have been trained on, in a line for people."""
