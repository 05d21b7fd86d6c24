"""A hierarchy of true latents, as SynthSAEBench has it: those below are active only where what is above them is."""

from itertools import pairwise

import torch
from torch import Tensor


class Trees:
    """Which true latents are below which: the roots, then the children of each in turn, then theirs."""

    def __init__(self, latents: int, roots: int, children: int) -> None:
        self._roots = roots
        self.parent_C = (torch.arange(latents) - roots)[roots:] // children
        """[G - roots]: of each latent that is no root."""
        ends = [roots]
        while ends[-1] < latents:
            before = ends[-2] if len(ends) > 1 else 0
            ends.append(min(latents, ends[-1] + (ends[-1] - before) * children))
        self._levels = list(pairwise(ends))

    def given_parents(self, probability: Tensor) -> Tensor:
        """How likely latents are, where the parent is active if they have one, to be as likely by themselves, or as
        their parent where that is less."""
        own, parents = probability[..., self._roots :], probability[..., self.parent_C]
        given = torch.where(parents > 0, own / parents.clamp(min=1e-30), 0.0).clamp(max=1)
        return torch.cat([probability[..., : self._roots], given], dim=-1)

    def held(self, active_bG: Tensor, chosen_bG: Tensor | None = None) -> Tensor:
        """[b, G] bool: those that are active and have active parents; with random numbers no two of one parent, but
        that of the largest."""
        held_bG = active_bG.clone()
        for first, end in self._levels:
            parent_c = self.parent_C[first - self._roots : end - self._roots]
            held_bc = held_bG[:, first:end] & held_bG[:, parent_c]
            if chosen_bG is not None:
                value_bc = torch.where(held_bc, chosen_bG[:, first:end], -1.0)
                best_bP = value_bc.new_full((len(value_bc), first), -1.0)
                best_bP.scatter_reduce_(1, parent_c.expand_as(value_bc), value_bc, "amax")
                held_bc = held_bc & (value_bc == best_bP[:, parent_c])
            held_bG[:, first:end] = held_bc
        return held_bG
