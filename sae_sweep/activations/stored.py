"""The stream of stored activations: blocks like those of a language model's site, read from files."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.finite import check_finite
from sae_sweep.activations.outliers import Guard
from sae_sweep.config.schema import DataConfig
from sae_sweep.data.rows import BLOCK_ORDER, permutation
from sae_sweep.data.stored.feed import Feed
from sae_sweep.errors import ConfigError
from sae_sweep.model.sites import modelless_site

HELDOUT_ROWS = 64
"""Read at a time."""


class StoredStream:
    """Blocks of `data.block_rows` rows in the order in which a stream of as many rows of tokens has them."""

    def __init__(
        self,
        data: Feed,
        config: DataConfig,
        dtype: torch.dtype,
        device: torch.device,
        largest_norms: Mapping[str, float] | None = None,
    ) -> None:
        """The first block is not read for the `largest_norms` that are known."""
        self.data, self._config = data, config
        self.hook = modelless_site(config.kind).hook
        self._dtype, self.device = dtype, device
        self.guard = Guard(config.max_norm_ratio, partial(self._whole_block, 0), (self.hook,), largest_norms)

    def block(self, index: int) -> Block:
        """The block at `index`, the same whatever was asked for before. ConfigError where a number is none."""
        return self.guard.told(self._whole_block(index))

    def _whole_block(self, index: int) -> Block:
        rows, epoch = self.data.block(index)
        count = int(rows.counted_RT.sum())
        if count == 0:
            raise ConfigError(
                f"data.block_rows={self._config.block_rows}: no activation of block {index} counts, nothing to train on"
            )
        places_B = torch.from_numpy(permutation(count, BLOCK_ORDER, self._config.seed, index))
        x_BD = torch.empty(count, self.data.width, dtype=self._dtype)
        x_BD[places_B] = rows.activations_RTD[rows.counted_RT].to(self._dtype)
        tokens_B = torch.empty(count, dtype=torch.int64)
        tokens_B[places_B] = rows.tokens_RT[rows.counted_RT]
        check_finite(x_BD, self.data.label, f"block {index}", stored=True)
        return Block(index, epoch, {self.hook: x_BD.to(self.device)}, {self.hook: tokens_B.to(self.device)})

    def heldout(self, data: Feed, rows: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The activations [b, D] that count of the first rows that are held out, of this data or other, the row [b] of
        each, and its token [b], some at a time."""
        for first in range(0, rows, HELDOUT_ROWS):
            found = data.heldout(first, min(first + HELDOUT_ROWS, rows))
            row_R = torch.arange(first, first + len(found.counted_RT))
            row_b = row_R[:, None].expand_as(found.counted_RT)[found.counted_RT]
            x_bD = found.activations_RTD[found.counted_RT].to(self._dtype)
            check_finite(x_bD, data.label, f"held-out row {first} and those after it", stored=True)
            yield x_bD.to(self.device), row_b.to(self.device), found.tokens_RT[found.counted_RT].to(self.device)
