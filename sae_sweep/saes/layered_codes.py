"""Codes of a cross-layer transcoder: those of each layer's latents, side by side. Letters are those of `codes.py`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sae_sweep.saes.codes import Codes
from sae_sweep.saes.layout import Layout
from sae_sweep.saes.spaces import Spaces

NOT_ASKED = (
    "a cross-layer transcoder has neither parts by rank nor groups of latents, and each layer encodes for itself"
)


class LayeredCodes(Codes):
    """Values are the layers' own, end to end: what is elementwise may look at all of them at once."""

    def __init__(self, parts: Sequence[Codes], values: Sequence[Tensor], layout: Layout, spaces: Spaces):
        """The codes of each layer, and their values as they are now."""
        self.layout, self.tokens, self._spaces = layout, parts[0].tokens, spaces
        self._parts, self._sizes = tuple(parts), [own.shape[-1] for own in values]

    def _each(self, function: Callable[[Codes, Tensor], Tensor], values: Tensor) -> list[Tensor]:
        return [function(part, own) for part, own in zip(self._parts, values.split(self._sizes, dim=-1), strict=True)]

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        tables, own = self._spaces.tables(W_dec), values.split(self._sizes, dim=-1)
        found = [part.decode(v, table)[:, 0] for part, v, table in zip(self._parts, own, tables, strict=True)]
        return ends_summed(found)[:, None]

    def inside(self, values: Tensor) -> Tensor:
        return torch.cat(self._each(lambda part, own: part.inside(own), values), dim=-1)

    def at_latent(self, vector_F: Tensor) -> Tensor:
        own = vector_F.chunk(len(self._parts))
        return torch.cat([part.at_latent(vector_f) for part, vector_f in zip(self._parts, own, strict=True)])

    def member_sums(self, values: Tensor) -> Tensor:
        return torch.stack(self._each(lambda part, own: part.member_sums(own), values)).sum(0)

    def latent_sums(self, values: Tensor) -> Tensor:
        return torch.cat(self._each(lambda part, own: part.latent_sums(own), values))

    def member_minima(self, values: Tensor) -> Tensor:
        return torch.stack(self._each(lambda part, own: part.member_minima(own), values)).amin(0)

    def support(self) -> Tensor:
        return torch.cat([part.support() for part in self._parts])

    def fired(self, values: Tensor) -> Tensor:
        return torch.cat(self._each(lambda part, own: part.fired(own), values))

    def relaid(self, layout: Layout) -> Codes:
        raise AssertionError(NOT_ASKED)

    def ranked(self, values: Tensor, ends: Sequence[Sequence[int]]) -> tuple[Codes, Tensor]:
        raise AssertionError(NOT_ASKED)

    def dense(self, values: Tensor, latents: slice) -> Tensor:
        raise AssertionError(NOT_ASKED)

    def transposed_times(self, values: Tensor, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError(NOT_ASKED)

    def times(self, values: Tensor, rows_FD: Tensor) -> Tensor:
        raise AssertionError(NOT_ASKED)


def ends_summed(parts_BD: Sequence[Tensor]) -> Tensor:
    """[B, D]: what each layer's latents write, of which the first is the widest and all end together, added up."""
    if len(parts_BD) == 1:
        return parts_BD[0]
    summed_BD: Tensor = _EndsSummed.apply(*parts_BD)
    return summed_BD


class _EndsSummed(torch.autograd.Function):
    """In one copy, where a slice written to would take one each way."""

    @staticmethod
    def forward(ctx: Any, *parts_BD: Tensor) -> Tensor:
        ctx.widths = [part_BD.shape[1] for part_BD in parts_BD]
        summed_BD = parts_BD[0].clone()
        for part_BD in parts_BD[1:]:
            summed_BD[:, -part_BD.shape[1] :] += part_BD
        return summed_BD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g_BD,) = gradients
        return tuple(g_BD[:, -width:].contiguous() for width in ctx.widths)
