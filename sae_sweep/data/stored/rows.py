"""Rows of stored activations, by number: those held out come first, the rest are trained on."""

import logging
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.checks import check_data
from sae_sweep.data.origin import opened
from sae_sweep.data.packing import Ids
from sae_sweep.data.rows import TokenStream
from sae_sweep.data.stored.feed import Rows
from sae_sweep.data.stored.formats import shards
from sae_sweep.data.stored.shard import Shard
from sae_sweep.data.tokens import SMALL_SHARE
from sae_sweep.errors import ConfigError

log = logging.getLogger(__name__)


class StoredRows:
    """Rows of `data.context` activations, in the order of files."""

    def __init__(self, label: str, found: Sequence[Shard], context: int) -> None:
        """Raises ConfigError where shards differ in width, or cannot be cut into such rows."""
        widths = {shard.shape[-1]: shard.label for shard in found}
        if len(widths) != 1:
            told = ", ".join(f"{width} ({file})" for width, file in widths.items())
            raise ConfigError(f"{label}: files differ in how many numbers an activation has: {told}")
        for shard in found:
            shard.check(context)
        (self.width,) = widths
        self.label, self._shards, self.context = label, list(found), context
        self._ends = list(accumulate(shard.rows(context) for shard in found))

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def dropped(self) -> int:
        """Activations at the ends of shards that fill no row."""
        total = sum(math.prod(shard.shape[:-1]) for shard in self._shards)
        return total - len(self) * self.context

    def read(self, numbers_R: Ids) -> Rows:
        """The rows of these numbers."""
        shape = (len(numbers_R), self.context)
        tokens_RT, counted_RT = np.zeros(shape, np.int64), np.ones(shape, bool)
        x_RTD: list[np.ndarray] = []
        for row, number in enumerate(numbers_R.tolist()):
            place = bisect_right(self._ends, number)
            shard = self._shards[place]
            x_TD, tokens_T, counted_T = shard.row(number - self._ends[place] + shard.rows(self.context), self.context)
            x_RTD.append(x_TD)
            if tokens_T is not None:
                tokens_RT[row] = tokens_T
            if counted_T is not None:
                counted_RT[row] = counted_T != 0
        return Rows(torch.from_numpy(np.stack(x_RTD)), torch.from_numpy(tokens_RT), torch.from_numpy(counted_RT))


class _Numbers:
    """The numbers of rows from `first` on, read as a stream of token rows is."""

    def __init__(self, first: int, end: int) -> None:
        self._first = first
        self.length: int | None = end - first

    def read(self, start: int, stop: int) -> Ids:
        assert self.length is not None
        return np.arange(self._first + start, self._first + min(stop, self.length), dtype=np.int32)[:, None]


class StoredData:
    """Rows of files: some are held out, the rest is trained on in the order in which rows of tokens would be."""

    replays = True

    def __init__(self, heldout: StoredRows, heldout_rows: int, training: StoredRows, order: TokenStream) -> None:
        """The first `heldout_rows` of `heldout` are judged on; `order` gives blocks of row numbers [n, 1]."""
        self.held, self.heldout_rows, self.training, self.order = heldout, heldout_rows, training, order
        self.label, self.width = training.label, training.width

    def heldout(self, first: int, stop: int) -> Rows:
        """Some of the rows held out."""
        return self.held.read(np.arange(first, min(stop, self.heldout_rows), dtype=np.int32))

    def block(self, index: int) -> tuple[Rows, int]:
        """The rows of a block to train on, and the epoch of its first."""
        numbers_R, epoch = self.order.block(index)
        return self.training.read(numbers_R[:, 0]), epoch

    def account(self, blocks: int) -> str:
        """What became of the activations when so many blocks have been trained on, in a line for people."""
        context, epoch = self.training.context, self.order.rows_per_epoch or 1
        rows = blocks * self.order.block_rows
        return (
            f"data: {self.heldout_rows * context:,} activations held out, {rows * context:,} read to train on"
            f" ({rows / epoch:.3g} times over {epoch * context:,}), {self.training.dropped:,} dropped"
        )


def open_stored(config: DataConfig, evaluation_tokens: float) -> StoredData:
    """The activations that a config names: `evaluation.tokens` held out, up to whole rows, the rest to train on.

    Held-out rows come from `data.heldout_path`, or are the first. Raises ConfigError where nothing is left to train on.
    """
    check_data(config)
    training, own = opened(config, lambda origin: StoredRows(origin.label, shards(origin), config.context))
    if own is not None and own.width != training.width:
        raise ConfigError(f"{own.label} has activations of {own.width} numbers, and {training.label} {training.width}")
    asked = math.ceil(evaluation_tokens / config.context)
    source = own or training
    there = len(source)
    if own is None and there <= asked:
        there = there // SMALL_SHARE
    kept = min(asked, there)
    first = 0 if own is not None else kept
    if kept == 0 or len(training) == first:
        raise ConfigError(
            f"{source.label} has {len(source)} rows of data.context={config.context} activations, too few to train and"
            " to judge on; give more, or a smaller data.context"
        )
    if kept < asked:
        log.warning(
            "%s: evaluation.tokens=%g asks for %d held-out rows of %d activations; %d are held out",
            *(source.label, evaluation_tokens, asked, config.context, kept),
        )
    order = TokenStream(_Numbers(first, len(training)), config.seed, config.window_rows, config.block_rows)
    return StoredData(source, kept, training, order)
