"""What members read and what they reconstruct, as far as equations depend on it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spaces:
    """The space of the inputs and that of the targets."""

    same: bool = True
    """Members reconstruct what they read. If not (a transcoder), a decoder bias is no point of the input space, and
    decoder rows are no directions in it."""

    sites: int = 1
    """How many sites of equal width lie side by side in an input (a crosscoder's; Lindsey et al. 2024)."""

    layers: int = 1
    """How many layers lie side by side in an input and in a target (a cross-layer transcoder's; Ameisen et al. 2025).
    Latents are ordered by the layer that they read; they write to it and to those after it. A row of W_dec [R, D] is
    what one latent writes to one layer: by latent, and of each by layer."""

    @property
    def pre_bias(self) -> bool:
        """Whether encoders that have a bias before them subtract b_dec. Crosscoders do not."""
        return self.same and self.sites == 1

    def centred(self, x_BD: Tensor, b_dec: Tensor) -> Tensor:
        """The inputs of an encoder with a pre-encoder bias, b_dec [D]."""
        return x_BD - b_dec if self.pre_bias else x_BD

    def product(self, W_enc: Tensor, x_D: Tensor) -> Tensor:
        """[F]: W_enc of one member times an input; of several layers, that of each latent's own."""
        if self.layers == 1:
            return W_enc @ x_D
        parts = zip(W_enc.chunk(self.layers), x_D.chunk(self.layers), strict=True)
        return torch.cat([W_fd @ x_d for W_fd, x_d in parts])

    def decoder_rows(self, latents: int) -> int:
        """How many rows of W_dec so many latents have; they are those of whole members."""
        return latents * (self.layers + 1) // 2

    def encoders(self, W_enc: Tensor) -> list[Tensor]:
        """One member's encoder rows, by the layer that they read."""
        return [W_enc] if self.layers == 1 else list(W_enc.chunk(self.layers))

    def tables(self, W_dec: Tensor) -> list[Tensor]:
        """One member's decoder with a row for each latent: a table for each layer that is read, whose rows are what a
        latent writes to that layer and to those after it, end to end."""
        if self.layers == 1:
            return [W_dec]
        own = len(W_dec) // self.decoder_rows(self.layers)
        parts = W_dec.split([own * written for written in range(self.layers, 0, -1)])
        return [part.view(own, -1) for part in parts]

    def in_tables(self, latents_K: Tensor, width: int) -> list[Tensor]:
        """Some of the `width` latents of a member, as rows of each table."""
        if self.layers == 1:
            return [latents_K]
        own = width // self.layers
        firsts = range(0, width, own)
        return [latents_K[(latents_K >= first) & (latents_K < first + own)] - first for first in firsts]

    def decoder_norms(self, W_dec: Tensor) -> Tensor:
        """[F]: what a penalty weights latents by: the norms of a latent's decoder rows, summed over sites; of a
        cross-layer transcoder that of all that a latent writes, end to end."""
        if self.sites == 1:
            return torch.cat([table.norm(dim=1) for table in self.tables(W_dec)])
        norms_F: Tensor = torch.linalg.vector_norm(W_dec.unflatten(1, (self.sites, -1)), dim=2).sum(1)
        return norms_F


AUTOENCODER = Spaces()
TRANSCODER = Spaces(same=False)
