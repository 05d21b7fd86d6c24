"""A block of a stream: what is trained on before the next one is made."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sae_sweep.activations.sequences import Sequences


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
    before_B: Tensor | None = None
    """[B] int64: the place of the activation at the position before, of the same row; -1 where none counts there. None
    where activations have no order."""
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

    def take_before(self, hooks: Sequence[str], part: slice) -> tuple[dict[str, Tensor], Tensor]:
        """Of what `take` gives, the activations at the positions before, [b, d] by hook, and where there is one that
        counts at all of these hooks [b]; any activation where not."""
        assert self.before_B is not None
        kept_N = self.kept(hooks)
        before_b = self.before_B[part] if kept_N is None else self.before_B.index_select(0, kept_N[part])
        there_b = before_b >= 0
        before_b = before_b.clamp(min=0)
        for hook in hooks:
            if hook in self.inliers:
                there_b = there_b & self.inliers[hook].index_select(0, before_b)
        return {hook: self.activations[hook].index_select(0, before_b) for hook in hooks}, there_b
