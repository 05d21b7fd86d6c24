"""A bank: the parameters of members that step together, end to end in one storage per name.

A member is a view of it: that is what the optimizer, clipping, resampling and saving use, so company changes
nothing for a member. A *chunk* is a run of neighbouring members whose losses are computed together, with one
encoder product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.saes.base import Losses, Parameters, SaeMaths, Step
from sae_sweep.saes.layout import Layout

PER_MEMBER = frozenset({"b_dec"})
"""Parameters with one row per member; all others have one per latent."""


@dataclass(frozen=True)
class Chunk:
    """Members first..last-1 of a bank."""

    first: int
    last: int
    dense: bool

    @property
    def members(self) -> slice:
        return slice(self.first, self.last)


class Bank:
    """M members of one architecture at one site: `storage[name]` is [F, ...], or [M, D] for b_dec."""

    def __init__(self, maths: SaeMaths, configs: Sequence[SaeConfig], initial: Sequence[Parameters]):
        """`initial` holds each member's first parameters, on the device and in the dtype they will keep."""
        self.maths = maths
        self.configs = tuple(configs)
        device = initial[0]["W_enc"].device
        self.layout = Layout(tuple(len(p["W_enc"]) for p in initial), device)
        self.storage: Parameters = {
            name: torch.stack([p[name] for p in initial])
            if name in PER_MEMBER
            else torch.cat([p[name] for p in initial])
            for name in initial[0]
        }

    def latents(self, first: int, last: int) -> slice:
        """The latents of members first..last-1."""
        return slice(self.layout.slices[first].start, self.layout.slices[last - 1].stop)

    def views(self, tensors: Parameters, first: int, last: int) -> Parameters:
        """The part of storage-shaped tensors that belongs to members first..last-1."""
        rows = self.latents(first, last)
        return {name: t[first:last] if name in PER_MEMBER else t[rows] for name, t in tensors.items()}

    def member(self, tensors: Parameters, member: int) -> Parameters:
        """One member's part of storage-shaped tensors; b_dec is [D]."""
        views = self.views(tensors, member, member + 1)
        return {name: t[0] if name in PER_MEMBER else t for name, t in views.items()}

    def gradients(
        self, x_BD: Tensor, chunk: Chunk, coefficient_M: Tensor, dead_F: Tensor, variance: float
    ) -> tuple[Losses, list[Parameters]]:
        """Losses of a chunk's members, and each one's gradients shaped as its parameters.

        `coefficient_M` and `dead_F` are the chunk's own.
        """
        leaves = {
            name: t.detach().requires_grad_() for name, t in self.views(self.storage, chunk.first, chunk.last).items()
        }
        layout = Layout(self.layout.widths[chunk.members], self.layout.device)
        step = Step(self.configs[chunk.members], layout, chunk.dense, dead_F, variance)
        losses = self.maths.losses(leaves, x_BD, step)
        flat = torch.autograd.grad(losses.total(coefficient_M).sum(), list(leaves.values()))
        named = dict(zip(leaves, flat, strict=True))
        return losses, [
            {name: g[i] if name in PER_MEMBER else g[rows] for name, g in named.items()}
            for i, rows in enumerate(layout.slices)
        ]
