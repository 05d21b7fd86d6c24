"""The replayable stream of activations: blocks of rows harvested at every site, permuted, consumed whole."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.finite import check_finite
from sae_sweep.activations.outliers import Guard
from sae_sweep.activations.sequences import Sequences, WholePasses
from sae_sweep.config.schema import DataConfig
from sae_sweep.data.parting import parting
from sae_sweep.data.positions import counted_positions, readable, target_positions
from sae_sweep.data.rows import BLOCK_ORDER, TokenStream, permutation
from sae_sweep.errors import ConfigError
from sae_sweep.kernels.device import moved
from sae_sweep.model.language_model import LanguageModel

Harvest: TypeAlias = Callable[[LanguageModel, Tensor, Sequence[str]], dict[str, Tensor]]
"""(model, tokens_RT int64, hooks) -> activations [R, T, d] by hook; `sae_sweep.model.harvest.harvest` is the one."""


@dataclass(frozen=True)
class BlockRows:
    """The rows of a block, and the order of its activations. On the CPU."""

    index: int
    tokens_RT: Tensor
    """[R, T] int64."""
    counted_RT: Tensor
    """[R, T] bool."""
    places_B: Tensor
    """[B] int64: the n-th counted position of the rows goes to row places_B[n]."""

    @property
    def tokens_B(self) -> Tensor:
        """[B] int64: the token of each activation."""
        tokens_B = torch.empty_like(self.places_B)
        tokens_B[self.places_B] = self.tokens_RT[self.counted_RT]
        return tokens_B

    @property
    def before_B(self) -> Tensor:
        """[B] int64: the place of the activation at the position before; -1 where none counts there."""
        follows_RT = self.counted_RT.clone()
        follows_RT[:, 0], follows_RT[:, 1:] = False, self.counted_RT[:, 1:] & self.counted_RT[:, :-1]
        before_B = torch.empty_like(self.places_B)
        last_B = self.places_B.roll(1)  # of the counted position before, which is the one before where it follows
        before_B[self.places_B] = torch.where(follows_RT[self.counted_RT], last_B, -1)
        return before_B


Gather: TypeAlias = Callable[[BlockRows, Sequence[str]], dict[str, Tensor]]
"""(rows, hooks) -> counted activations [B, d] by hook, in the rows' order, on the model's device."""
Recall: TypeAlias = Callable[[BlockRows, Sequence[str], Gather], dict[str, Tensor]]
"""The same, from a memory that asks the Gather for what it lacks: `sae_sweep.activations.cache` has one."""


class ActivationStream:
    """Blocks of activations, the same for the same model, tokens and index whatever was asked for before."""

    def __init__(
        self,
        model: LanguageModel,
        rows: TokenStream,
        hooks: Sequence[str],
        config: DataConfig,
        harvest: Harvest,
        recall: Recall | None = None,
        whole: WholePasses | None = None,
        read: Callable[[int, float], None] = lambda index, share: None,
        largest_norms: Mapping[str, float] | None = None,
    ) -> None:
        """With `whole`, blocks have sequences, and activations come from the passes that those need: no memory could
        save one. `read` is told, after each forward pass, which share of a block was read. The first block is not read
        for the `largest_norms` that are known."""
        self._model = model
        self._rows = rows
        self._hooks = tuple(hooks)
        self._config, self._rows_per_forward = config, config.rows_per_forward
        self._harvest = whole or harvest
        self._recall = None if whole else recall
        self._whole, self._read = whole, read
        self._guard = Guard(config.max_norm_ratio, partial(self._whole_block, 0), self._hooks, largest_norms)
        tokenizer = model.tokenizer
        special_ids = tokenizer.all_special_ids if tokenizer is not None else []
        self._special_ids = torch.tensor(special_ids, dtype=torch.int64)
        self._bos_id: int | None = tokenizer.bos_token_id if tokenizer is not None else None
        self._parting = parting(config, tokenizer)

    def block(self, index: int) -> Block:
        """The block at `index`. ConfigError when the model gives an infinite or NaN activation."""
        return self._guard.told(self._whole_block(index))

    @property
    def largest_norms(self) -> dict[str, float]:
        """By hook, the norm above which an activation does not count (`data.max_norm_ratio`); empty where all do."""
        return self._guard.largest_norms

    def in_smaller_passes(self) -> bool:
        """Let the model read half as many rows at a time from here on; False where it reads one."""
        read, self._rows_per_forward = self._rows_per_forward, max(1, self._rows_per_forward // 2)
        return read > 1

    def _whole_block(self, index: int) -> Block:
        rows, epoch = self._rows.block(index)
        tokens_RT = torch.from_numpy(rows).long()
        counted_RT = counted_positions(tokens_RT, self._special_ids, self._bos_id, self._parting)
        target_RT = target_positions(counted_RT, tokens_RT, self._special_ids)
        tokens_RT = readable(tokens_RT)
        count = int(counted_RT.sum())
        if count == 0:
            raise ConfigError(
                f"data.block_rows={len(rows)}: block {index} holds special tokens only, nothing to train on"
            )
        places_B = torch.from_numpy(permutation(count, BLOCK_ORDER, self._config.seed, index))
        taken = BlockRows(index, tokens_RT, counted_RT, places_B)
        if self._whole is not None:
            self._whole.forget()
        if self._recall is None:
            activations = self._gather(taken, self._hooks)
        else:
            activations = self._recall(taken, self._hooks, self._gather)
        sequences = None
        if self._whole is not None:
            sequences = Sequences(self._whole.take(), counted_RT, target_RT)
        tokens_B = moved(taken.tokens_B, self._model.device)
        before_B = moved(taken.before_B, self._model.device)
        return Block(index, epoch, activations, dict.fromkeys(activations, tokens_B), sequences, before_B=before_B)

    @torch.no_grad()
    def _gather(self, rows: BlockRows, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Counted activations [B, d] of each site, by forward passes of the model."""
        device = self._model.device
        tokens_RT, counted_RT, places_B = rows.tokens_RT, rows.counted_RT, moved(rows.places_B, device)
        blocks: dict[str, Tensor] = {}
        step, done = self._rows_per_forward, 0
        for start in range(0, len(tokens_RT), step):
            harvested = self._harvest(self._model, moved(tokens_RT[start : start + step], device), hooks)
            # Found on the CPU, where the tokens are: indexing by a mask would make the device wait for its size.
            counted_b = moved(counted_RT[start : start + step].flatten().nonzero().squeeze(1), device)
            places_b = places_B[done : done + len(counted_b)]
            for hook in hooks:
                x_PD = harvested.pop(hook).flatten(0, 1)
                if hook not in blocks:
                    blocks[hook] = x_PD.new_empty(len(places_B), x_PD.shape[1])
                blocks[hook].index_copy_(0, places_b, x_PD.index_select(0, counted_b))  # straight to its place
            done += len(counted_b)
            self._read(rows.index, min(1.0, (start + step) / len(tokens_RT)))
        for hook, x_BD in blocks.items():
            check_finite(x_BD, hook, f"block {rows.index}")
        return blocks
