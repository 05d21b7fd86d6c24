"""What members read and what they reconstruct, as far as equations depend on it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Spaces:
    """The space of the inputs and that of the targets."""

    same: bool = True
    """Members reconstruct what they read. If not (a transcoder), a decoder bias is no point of the input space, and
    decoder rows are no directions in it."""

    def centred(self, x_BD: Tensor, b_dec: Tensor) -> Tensor:
        """The inputs of an encoder with a pre-encoder bias, b_dec [D]: about it, where it is one of them."""
        return x_BD - b_dec if self.same else x_BD


AUTOENCODER = Spaces()
TRANSCODER = Spaces(same=False)
