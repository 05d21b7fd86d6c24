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

    @property
    def pre_bias(self) -> bool:
        """Whether encoders that have a bias before them subtract b_dec. Crosscoders do not."""
        return self.same and self.sites == 1

    def centred(self, x_BD: Tensor, b_dec: Tensor) -> Tensor:
        """The inputs of an encoder with a pre-encoder bias, b_dec [D]."""
        return x_BD - b_dec if self.pre_bias else x_BD

    def decoder_norms(self, W_dec: Tensor) -> Tensor:
        """[F]: what a penalty weights latents by: the norms of a latent's decoder rows, summed over sites."""
        if self.sites == 1:
            return W_dec.norm(dim=1)
        norms_F: Tensor = torch.linalg.vector_norm(W_dec.unflatten(1, (self.sites, -1)), dim=2).sum(1)
        return norms_F


AUTOENCODER = Spaces()
TRANSCODER = Spaces(same=False)
