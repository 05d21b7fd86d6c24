"""Activations that a Python program hands over, block after block: `ss.train(..., activations=f)`."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sae_sweep.data.stored.feed import Rows
from sae_sweep.errors import ConfigError

Blocks: TypeAlias = "Iterable[Any] | Callable[[int], Iterable[Any]]"
"""Arrays [B, D], all of one size, once; or a function that gives them from the n-th on, as often as it is asked."""

GIVEN: dict[str, "Given"] = {}
"""What this process was handed, by `data.path`."""
ROW = 128
"""Activations to a row at most: rows are what standard errors are taken over."""


class Given:
    """Blocks by their number. Those that a plain iterable gave are gone, all but the last."""

    def __init__(self, blocks: Blocks) -> None:
        """Raises ConfigError where there is no first block."""
        self.replays = callable(blocks)
        """Whether a block can be had again, so that training can go on from a checkpoint."""
        self._from: Callable[[int], Iterable[Any]] = blocks if callable(blocks) else lambda index: blocks
        self._iterator: Iterator[Any] | None = None
        self._next = 0
        self._last: tuple[int, Tensor] | None = None
        self.length: int | None = None
        """How many blocks there are; None until the end was seen."""
        first = self.block(0)
        if first is None:
            raise ConfigError("activations= gave no block")
        self.size, self.width = first.shape

    @property
    def context(self) -> int:
        """Activations to a row: a block is cut into whole ones."""
        return next((rows for rows in range(min(ROW, self.size), 1, -1) if self.size % rows == 0), self.size)

    def block(self, index: int) -> Tensor | None:
        """The block [B, D] of this number; None behind the last, and for a last one that is smaller than the others.

        Raises ConfigError for what is no such array, and where blocks that come once are asked for again.
        """
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        if self._iterator is None or index != self._next:
            if index and not self.replays:
                raise ConfigError(
                    "activations= is an iterable, whose blocks come once, and training needs an earlier one; give a"
                    " function of a block's number that returns an iterator from there on"
                )
            self._iterator, self._next = iter(self._from(index)), index
        found = next(self._iterator, None)
        if found is None:
            self._iterator, self.length = None, index
            return None
        block_BD = self._checked(found, index)
        if self._last is not None and len(block_BD) < self.size:
            self._iterator, self.length = None, index
            return None
        self._next, self._last = index + 1, (index, block_BD)
        return block_BD

    def _checked(self, found: Any, index: int) -> Tensor:
        try:
            block_BD = torch.as_tensor(found)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"activations= gave {type(found).__name__} as block {index}, not an array") from error
        first = self._last is None
        fits = block_BD.ndim == 2 and block_BD.is_floating_point() and block_BD.numel() > 0
        if not fits or not (first or (block_BD.shape[1] == self.width and len(block_BD) <= self.size)):
            wanted = "[B, D] of floating numbers" if first else f"[{self.size}, {self.width}], as the first"
            raise ConfigError(
                f"activations= gave {list(block_BD.shape)} {block_BD.dtype} as block {index}; give {wanted}"
            )
        return block_BD.detach().cpu()


class GivenData:
    """The first blocks are held out, in memory; those after them are trained on, again and again where they end."""

    label = "activations="

    def __init__(self, given: Given, evaluation_tokens: float) -> None:
        """Raises ConfigError where nothing is left to train on."""
        self._given, self.width, self.replays = given, given.width, given.replays
        self._rows = given.size // given.context
        self._held = math.ceil(evaluation_tokens / given.size)
        held = [given.block(index) for index in range(self._held)]
        if None in (held[-1], given.block(self._held)):
            raise ConfigError(
                f"activations= gave {given.length} blocks of {given.size}, too few to hold out"
                f" evaluation.tokens={evaluation_tokens:g} and to train on"
            )
        self._heldout_RTD = torch.cat([each for each in held if each is not None]).unflatten(0, (-1, given.context))
        self._heldout_RTD = self._heldout_RTD[: math.ceil(evaluation_tokens / given.context)]

    @property
    def heldout_rows(self) -> int:
        """How many rows are held out."""
        return len(self._heldout_RTD)

    def heldout(self, first: int, stop: int) -> Rows:
        """Some of them."""
        return _rows(self._heldout_RTD[first:stop])

    def block(self, index: int) -> tuple[Rows, int]:
        """A block to train on, and the epoch it is of. Raises ConfigError where blocks that come once have ended."""
        epoch, place = divmod(index, self._epoch) if self._epoch is not None else (0, index)
        block_BD = self._given.block(self._held + place)
        if block_BD is None:
            if not self.replays:
                raise ConfigError(
                    f"activations= ended after {place} blocks to train on, before training.tokens; give more, or a"
                    " function of a block's number, which is asked again"
                )
            return self.block(index)
        return _rows(block_BD.unflatten(0, (-1, self._given.context))), epoch

    @property
    def _epoch(self) -> int | None:
        return None if self._given.length is None else self._given.length - self._held

    def account(self, blocks: int) -> str:
        """What became of the activations when so many blocks have been trained on, in a line for people."""
        size = self._given.size
        return f"data: {self._heldout_RTD[:, :, 0].numel():,} activations held out, {blocks * size:,} read to train on"


def _rows(x_RTD: Tensor) -> Rows:
    shape = x_RTD.shape[:2]
    return Rows(x_RTD, torch.zeros(shape, dtype=torch.int64), torch.ones(shape, dtype=torch.bool))
