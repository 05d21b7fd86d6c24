"""The encoder of a cross-layer transcoder: that of each layer reads its own part of the inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Room
from sae_sweep.kernels.selection import smallest_of_largest
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder
from sae_sweep.saes.encoders.choose import encoder_of
from sae_sweep.saes.layered_codes import LayeredCodes
from sae_sweep.saes.layout import Layout, layout_of
from sae_sweep.saes.spaces import Spaces


class LayeredEncoder(Encoder):
    """Pre-activations of one member, whose inputs [B, L x D] have the layers side by side. No b_pre."""

    def __init__(
        self,
        x_BD: Tensor,
        W_enc: Tensor,
        bias_F: Tensor | None,
        layout: Layout,
        spaces: Spaces,
        dense: bool,
        room: Room | None = None,
    ) -> None:
        """`dense` and `room` are those of `encoder_of`; every layer has as much room."""
        self._x_BD, self._layout, self._spaces = x_BD, layout, spaces
        own = layout_of((layout.latents // spaces.layers,), layout.device)
        biases = [None] * spaces.layers if bias_F is None else bias_F.chunk(spaces.layers)
        weights = zip(x_BD.chunk(spaces.layers, dim=1), W_enc.chunk(spaces.layers), biases, strict=True)
        self._encoders = [
            encoder_of(x_Bd.contiguous(), W_fd, bias_f, None, own, dense, None if room is None else room.wider(1))
            for x_Bd, W_fd, bias_f in weights
        ]

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        floors = [None] * self._spaces.layers if floor_F is None else floor_F.chunk(self._spaces.layers)
        return self._joined([own.above(floor_f) for own, floor_f in zip(self._encoders, floors, strict=True)])

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        """As many of each layer: no layer waits for what later ones read."""
        (count,) = counts
        return self._joined([own.largest_of_rows([count // self._spaces.layers]) for own in self._encoders])

    def largest_of_all(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        """Of all layers together: those of each layer that may be among them are found first."""
        (count,) = counts
        found = [own.largest_of_all(counts) for own in self._encoders]
        smallest = smallest_of_largest(torch.cat([z.detach().flatten() for _, z in found]), count)
        above_0 = torch.nextafter(smallest.new_zeros(()), smallest.new_ones(()))
        smallest = torch.maximum(smallest, above_0)
        return self._joined(
            [own.at_least(codes, z, smallest) for own, (codes, z) in zip(self._encoders, found, strict=True)]
        )

    def _joined(self, found: Sequence[tuple[Codes, Tensor]]) -> tuple[Codes, Tensor]:
        parts, values = zip(*found, strict=True)
        return LayeredCodes(parts, values, self._layout, self._spaces), torch.cat(values, dim=-1)
