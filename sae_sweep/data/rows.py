"""The training rows without end: epochs of the source's rows, each permuted within windows, at any position."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sae_sweep.data.packing import Ids

ROW_ORDER, BLOCK_ORDER = 1, 2  # what a permutation is of, so that no two draw the same random numbers


def permutation(length: int, *key: int) -> npt.NDArray[np.int64]:
    """A permutation of `length` items that depends on the key alone: what it is of, data.seed and a position.

    Non-negative integers; keys of one first entry must be equally long, as numpy ignores zeros at a seed's end.
    """
    return np.random.default_rng(key).permutation(length)


class Rows(Protocol):
    """Random access to the rows of one epoch."""

    length: int | None
    """How many there are; None until the end was seen."""

    def read(self, start: int, stop: int) -> Ids:
        """Rows start to stop, [n, context]; fewer only at the end. Not to be written to."""


class RowReader:
    """Random access to the rows of a source that can only be read from its start."""

    def __init__(self, open_rows: Callable[[], Iterator[Ids]], context: int, kept: bool) -> None:
        """`kept`: whether rows once read stay in memory. Else going back reads the source again."""
        self.length: int | None = None
        """Rows of one epoch; None until its end was seen."""
        self._open_rows = open_rows
        self._context = context
        self._kept = kept
        self._restart()

    def _restart(self) -> None:
        self._iterator = self._open_rows()
        self._chunks: list[tuple[int, Ids]] = []  # the first row's number, and the rows
        self._begin = self._end = 0  # of the rows in _chunks

    def read(self, start: int, stop: int) -> Ids:
        """Rows start to stop of an epoch, [n, context]; fewer only at its end. Not to be written to."""
        if start < self._begin:
            self._restart()
        while self._end < stop and self._advance():
            if not self._kept:
                self._drop(start)
        parts = [
            rows[max(start - first, 0) : stop - first]
            for first, rows in self._chunks
            if first < stop and start < first + len(rows)
        ]
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([np.empty((0, self._context), dtype=np.int32), *parts])

    def _advance(self) -> bool:
        rows = next(self._iterator, None)
        if rows is None:
            self.length = self._end
            return False
        self._chunks.append((self._end, rows))
        self._end += len(rows)
        return True

    def _drop(self, start: int) -> None:
        """Let go of the rows before `start`."""
        while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) <= start:
            first, rows = self._chunks.pop(0)
            self._begin = first + len(rows)


class TokenStream:
    """Blocks of training rows, the same for the same source, seed and index whatever was asked for before."""

    def __init__(self, reader: Rows, seed: int, window_rows: int, block_rows: int) -> None:
        """The source must have at least one row."""
        self._reader = reader
        self._seed = seed
        self.window_rows = window_rows
        self.block_rows = block_rows
        self._window: tuple[int, int, Ids, npt.NDArray[Any]] | None = None  # epoch, number, rows, their order

    @property
    def rows_per_epoch(self) -> int | None:
        """Rows of the source, or None while its end was not seen."""
        return self._reader.length

    def block(self, index: int) -> tuple[Ids, int]:
        """Rows index * block_rows to (index + 1) * block_rows of the endless permuted sequence.

        Returns them, [block_rows, context] int32, and the epoch (from 0) of the first.
        """
        position = index * self.block_rows
        first_epoch, _ = self._locate(position)
        parts: list[Ids] = []
        missing = self.block_rows
        while missing > 0:
            epoch, row = self._locate(position)
            number, offset = divmod(row, self.window_rows)
            rows, order = self._permuted_window(epoch, number)
            parts.append(rows[order[offset : offset + missing]])
            position += len(parts[-1])
            missing -= len(parts[-1])
        return np.concatenate(parts), first_epoch

    def _locate(self, position: int) -> tuple[int, int]:
        """The epoch and the row in it at a position of the endless sequence."""
        if self._reader.length is None:
            number, row = divmod(position, self.window_rows)
            if row < len(self._permuted_window(0, number)[0]):
                return 0, position
        assert self._reader.length  # known where the source ended before the position
        return divmod(position, self._reader.length)

    def _permuted_window(self, epoch: int, number: int) -> tuple[Ids, npt.NDArray[Any]]:
        if self._window is None or self._window[:2] != (epoch, number):
            start = number * self.window_rows
            rows = self._reader.read(start, start + self.window_rows)
            order = permutation(len(rows), ROW_ORDER, self._seed, epoch, number)
            self._window = (epoch, number, rows, order)
        return self._window[2:]
