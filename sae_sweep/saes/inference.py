"""A member as it is judged, saved and used: a plain SAE on raw activations, in the field's common layout.

The tensors are exactly those of the saved files, so every number in metrics.json is measured on what is on disk.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from sae_sweep.kernels.selection import row_top_mask


@dataclass(frozen=True)
class Lookup:
    """A decoder row per token id (tokenized SAE, arXiv 2502.17332)."""

    rows_VD: Tensor
    subtract: bool
    """Whether the row is taken out of the encoder's input too."""


@dataclass(frozen=True)
class InferenceSae:
    """W_enc is [D, F], W_dec [F, D] with unit rows. `architecture` says which activation: see `encode`."""

    architecture: str
    """standard, gated, topk or jumprelu."""
    tensors: dict[str, Tensor]
    subtract_b_dec: bool
    """Whether b_dec is subtracted from the encoder's input."""
    k: int | None
    lookup: Lookup | None = None

    @property
    def d(self) -> int:
        return self.tensors["W_enc"].shape[0]

    @property
    def width(self) -> int:
        return self.tensors["W_enc"].shape[1]

    def encode(self, x_BD: Tensor, tokens_B: Tensor | None = None) -> Tensor:
        """[B, F]: the latents of raw activations, 0 where they do not fire. Token ids are needed with a lookup."""
        margin_BF, magnitude_BF = self.margins(x_BD, tokens_B)
        f_BF = magnitude_BF.relu()
        return f_BF if margin_BF is magnitude_BF else f_BF * (margin_BF > 0)

    def margins(self, x_BD: Tensor, tokens_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, F] twice: a latent fires where both are above 0, and then with the second."""
        t = self.tensors
        if self.lookup is not None and self.lookup.subtract:
            x_BD = x_BD - self._rows(tokens_B)
        z_BF = (x_BD - t["b_dec"] if self.subtract_b_dec else x_BD) @ t["W_enc"]
        if self.architecture == "gated":
            return z_BF + t["b_gate"], z_BF * t["r_mag"].exp() + t["b_mag"]
        pre_BF = z_BF + t["b_enc"]
        if self.architecture == "topk":
            assert self.k is not None
            return row_top_mask(pre_BF, self.k).to(pre_BF.dtype), pre_BF
        if self.architecture == "jumprelu":
            return pre_BF - t["threshold"], pre_BF
        return pre_BF, pre_BF

    def decode(self, f_BF: Tensor, tokens_B: Tensor | None = None) -> Tensor:
        """[B, D]: the reconstruction. Token ids are needed with a lookup."""
        x_hat_BD = f_BF @ self.tensors["W_dec"] + self.tensors["b_dec"]
        return x_hat_BD if self.lookup is None else x_hat_BD + self._rows(tokens_B)

    def about(self, mean_D: Tensor) -> "InferenceSae":
        """The same SAE for x, given that this one is for x - mean."""
        tensors = {**self.tensors, "b_dec": self.tensors["b_dec"] + mean_D}
        if not self.subtract_b_dec:
            tensors["b_enc"] = self.tensors["b_enc"] - mean_D @ self.tensors["W_enc"]
        return replace(self, tensors=tensors)

    def _rows(self, tokens_B: Tensor | None) -> Tensor:
        assert self.lookup is not None
        if tokens_B is None:
            raise ValueError("a tokenized SAE needs the token ids of its inputs")
        return self.lookup.rows_VD.index_select(0, tokens_B)
