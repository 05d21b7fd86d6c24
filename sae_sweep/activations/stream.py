"""The replayable stream of activations: blocks of rows harvested at every site, permuted, consumed whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

from sae_sweep.activations.finite import check_finite
from sae_sweep.activations.sequences import Sequences, WholePasses
from sae_sweep.config.schema import DataConfig
from sae_sweep.data.positions import counted_positions, readable, target_positions
from sae_sweep.data.rows import BLOCK_ORDER, TokenStream, permutation
from sae_sweep.errors import ConfigError
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


Gather: TypeAlias = Callable[[BlockRows, Sequence[str]], dict[str, Tensor]]
"""(rows, hooks) -> counted activations [B, d] by hook, in the rows' order, on the model's device."""
Recall: TypeAlias = Callable[[BlockRows, Sequence[str], Gather], dict[str, Tensor]]
"""The same, from a memory that asks the Gather for what it lacks: `sae_sweep.activations.cache` has one."""


@dataclass(frozen=True)
class Block:
    """The activations of `data.block_rows` rows in one order for all sites, on the model's device.

    Outliers are among them. Who reads a site, or several together, asks for the activations that count there: `kept`.
    """

    index: int
    epoch: int
    """Of the block's first row, from 0."""
    activations: dict[str, Tensor]
    """[B, d] by hook, in the model's dtype; in one order for all sites."""
    tokens: dict[str, Tensor]
    """[B] int64 by hook: the token at each activation's position."""
    sequences: Sequences | None = None
    """The rows as they were read, where some member's objective runs the model on."""
    inliers: dict[str, Tensor] = field(default_factory=dict)
    """[B] bool by hook, of the hooks where some activations are too long to count."""
    _kept: dict[tuple[str, ...], Tensor] = field(default_factory=dict, repr=False)

    def kept(self, hooks: Sequence[str]) -> Tensor | None:
        """The places [N] of the activations that count at all of these hooks; None where all do."""
        names = tuple(hook for hook in dict.fromkeys(hooks) if hook in self.inliers)
        if not names:
            return None
        if names not in self._kept:
            self._kept[names] = torch.stack([self.inliers[hook] for hook in names]).all(0).nonzero().squeeze(1)
        return self._kept[names]

    def count(self, hooks: Sequence[str]) -> int:
        """How many activations count at all of these hooks."""
        kept_N = self.kept(hooks)
        return len(self.activations[hooks[0]]) if kept_N is None else len(kept_N)

    def take(self, hooks: Sequence[str], part: slice) -> tuple[dict[str, Tensor], Tensor]:
        """Of the activations that count at all of these hooks, a part: [b, d] by hook, and their tokens [b]."""
        kept_N = self.kept(hooks)

        def taken(tensor_B: Tensor) -> Tensor:
            return tensor_B[part] if kept_N is None else tensor_B.index_select(0, kept_N[part])

        return {hook: taken(self.activations[hook]) for hook in hooks}, taken(self.tokens[hooks[0]])


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
    ) -> None:
        """With `whole`, blocks have sequences, and activations come from the passes that those need: no memory could
        save one. `read` is told, after each forward pass, which share of a block was read."""
        self._model = model
        self._rows = rows
        self._hooks = tuple(hooks)
        self._config = config
        self._harvest = whole or harvest
        self._recall = None if whole else recall
        self._whole, self._read = whole, read
        self._largest_norms: dict[str, float] | None = None
        tokenizer = model.tokenizer
        special_ids = tokenizer.all_special_ids if tokenizer is not None else []
        self._special_ids = torch.tensor(special_ids, dtype=torch.int64)
        self._bos_id: int | None = tokenizer.bos_token_id if tokenizer is not None else None

    def block(self, index: int) -> Block:
        """The block at `index`. ConfigError when the model gives an infinite or NaN activation."""
        block = self._whole_block(index)
        if self._config.max_norm_ratio is None:
            return block
        if index == 0 and self._largest_norms is None:
            self._measure(block)
        return self._guarded(block)

    @property
    def largest_norms(self) -> dict[str, float]:
        """By hook, the norm above which an activation does not count (`data.max_norm_ratio`): so many times the median
        norm of the first block, for training and evaluation alike. Empty where there is no such ratio."""
        if self._largest_norms is None and self._config.max_norm_ratio is not None:
            self._measure(self._whole_block(0))
        return self._largest_norms or {}

    def _measure(self, first: Block) -> None:
        ratio = self._config.max_norm_ratio
        assert ratio is not None
        medians = {hook: float(row_norms(x_BD).median()) for hook, x_BD in first.activations.items()}
        self._largest_norms = {hook: ratio * median for hook, median in medians.items()}

    def _whole_block(self, index: int) -> Block:
        rows, epoch = self._rows.block(index)
        tokens_RT = torch.from_numpy(rows).long()
        counted_RT = counted_positions(tokens_RT, self._special_ids, self._bos_id)
        target_RT = target_positions(counted_RT, tokens_RT, self._special_ids)
        tokens_RT = readable(tokens_RT)
        count = int(counted_RT.sum())
        if count == 0:
            raise ConfigError(
                f"data.block_rows={len(rows)}: block {index} holds special tokens only, nothing to train on"
            )
        places_B = torch.from_numpy(permutation(count, BLOCK_ORDER, self._config.seed, index))
        taken = BlockRows(index, tokens_RT, counted_RT, places_B)
        if self._recall is None:
            activations = self._gather(taken, self._hooks)
        else:
            activations = self._recall(taken, self._hooks, self._gather)
        sequences = None
        if self._whole is not None:
            sequences = Sequences(self._whole.take(), counted_RT, target_RT)
        tokens_B = taken.tokens_B.to(self._model.device)
        return Block(index, epoch, activations, dict.fromkeys(activations, tokens_B), sequences)

    @torch.no_grad()
    def _gather(self, rows: BlockRows, hooks: Sequence[str]) -> dict[str, Tensor]:
        """Counted activations [B, d] of each site, by forward passes of the model."""
        tokens_RT, counted_RT, places_B = rows.tokens_RT, rows.counted_RT, rows.places_B.to(self._model.device)
        blocks: dict[str, Tensor] = {}
        step, done = self._config.rows_per_forward, 0
        for start in range(0, len(tokens_RT), step):
            harvested = self._harvest(self._model, tokens_RT[start : start + step].to(self._model.device), hooks)
            # Found on the CPU, where the tokens are: indexing by a mask would make the device wait for its size.
            counted_b = counted_RT[start : start + step].flatten().nonzero().squeeze(1).to(self._model.device)
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

    def _guarded(self, block: Block) -> Block:
        """The block, told which activations are too long for their site. Each site judges for itself, so that which
        other sites share the stream changes nothing for a member."""
        found = {hook: self._inliers(hook, x_BD) for hook, x_BD in block.activations.items()}
        inliers = {hook: inlier_B for hook, inlier_B in found.items() if not inlier_B.all()}
        sequences = block.sequences
        if sequences is not None:
            read = sequences.clean.activations
            own = {hook: self._inliers(hook, read[hook].flatten(0, 1)).view(read[hook].shape[:2]) for hook in inliers}
            sequences = replace(sequences, inliers={hook: inlier_RT.cpu() for hook, inlier_RT in own.items()})
        return replace(block, sequences=sequences, inliers=inliers)

    def _inliers(self, hook: str, x_ND: Tensor) -> Tensor:
        return row_norms(x_ND) <= self.largest_norms[hook]


def row_norms(x_BD: Tensor) -> Tensor:
    """Norms [B], in float32 at least: the square of a half-precision number overflows early."""
    dtype = torch.promote_types(x_BD.dtype, torch.float32)
    norms_B: Tensor = torch.linalg.vector_norm(x_BD, dim=1, dtype=dtype)
    return norms_B
