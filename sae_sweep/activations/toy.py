"""The stream of synthetic activations: blocks like those of a language model's site, without one."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.config.schema import DataConfig
from sae_sweep.data.kinds import modelless_kind
from sae_sweep.model.sites import modelless_site


class ToyStream:
    """Blocks of `data.block_rows` x `data.context` rows, without end and without repetition."""

    def __init__(self, config: DataConfig, dtype: torch.dtype, device: torch.device) -> None:
        kind = modelless_kind(config.kind)
        assert kind is not None
        self._data = kind.open_synthetic(config)
        self._hook = modelless_site(config.kind).hook
        self._rows = config.block_rows * config.context
        self._dtype, self._device = dtype, device
        self._fired: dict[int, Tensor] = {}  # [G] of each whole block that was drawn

    @property
    def truth_GD(self) -> Tensor:
        """[G, D] float32: the directions of the true latents, unit rows."""
        return self._data.truth_GD.to(self._device)

    def block(self, index: int) -> Block:
        """The block at `index`, the same whatever was asked for before. Its rows are independent: no order to undo."""
        x_BD = torch.empty(self._rows, self._data.truth_GD.shape[1], dtype=self._dtype)
        fired_G = self._nothing()
        start = 0
        for x_bD, codes_bG in self._data.activations("training", index, self._rows):
            x_BD[start : start + len(x_bD)] = x_bD
            fired_G += (codes_bG > 0).sum(0)
            start += len(x_bD)
        self._fired[index] = fired_G
        tokens_B = torch.zeros(self._rows, dtype=torch.int64, device=self._device)
        return Block(index, 0, {self._hook: x_BD.to(self._device)}, {self._hook: tokens_B})

    def heldout(self, rows: int) -> Iterator[Tensor]:
        """So many activations that no block has, some [b, D] at a time."""
        for x_bD, _ in self._data.activations("heldout", 0, rows):
            yield x_bD.to(self._device, self._dtype)

    def fired(self, steps: int, batch_size: int) -> Tensor:
        """[G] int64: on how many of the rows of a member's first steps each true latent was active.

        A member takes whole batches of each block, from the first on, and leaves what is over.
        """
        batches = self._rows // batch_size
        blocks, rest = divmod(steps, batches)
        total_G = self._nothing()
        for index in range(blocks):
            total_G += self._fired_in(index, batches * batch_size)
        return total_G + self._fired_in(blocks, rest * batch_size) if rest else total_G

    def _fired_in(self, index: int, rows: int) -> Tensor:
        """[G]: the same over the first rows of a block; remembered where that is all of it, else drawn again."""
        if rows == self._rows and index in self._fired:
            return self._fired[index]
        total_G = self._nothing()
        for codes_bG in self._data.codes("training", index, self._rows):
            total_G += (codes_bG[:rows] > 0).sum(0)
            rows -= min(rows, len(codes_bG))
            if rows == 0:
                break
        return total_G

    def _nothing(self) -> Tensor:
        return torch.zeros(len(self._data.truth_GD), dtype=torch.int64)
