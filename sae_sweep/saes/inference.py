"""A member as it is judged, saved and used: a plain SAE on raw activations, in the field's common layout.

The tensors are exactly those of the saved files, so every number in metrics.json is measured on what is on disk.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from sae_sweep.kernels.entries import Entries, above
from sae_sweep.kernels.sparse import weighted_row_sums
from sae_sweep.saes.form import InferenceForm, Tensors
from sae_sweep.saes.spaces import Spaces


@dataclass(frozen=True)
class Lookup:
    """A decoder row per token id (tokenized SAE, arXiv 2502.17332)."""

    rows_VD: Tensor
    subtract: bool
    """Whether the row is taken out of the encoder's input too."""


@dataclass(frozen=True)
class Units:
    """Members train on scale (x - mean) of raw activations x, or on a symmetric matrix times x - mean."""

    scale: float | Tensor = 1.0
    mean_D: Tensor | None = None
    matrix_DD: Tensor | None = None

    def applied(self, x_BD: Tensor) -> Tensor:
        """Raw activations [B, D] as members see them in training."""
        x_BD = x_BD if self.mean_D is None else x_BD - self.mean_D
        return self.scale * x_BD if self.matrix_DD is None else x_BD @ self.matrix_DD


@dataclass(frozen=True)
class InferenceSae:
    """W_enc is [D, F], W_dec [F, D] with unit rows; which latents fire is the form's to say.

    A transcoder's W_enc has the D of what it reads, W_dec and b_dec have that of what it gives; a skip is W_skip [D of
    the output, D of the input].
    """

    form: InferenceForm
    tensors: Tensors
    subtract_b_dec: bool
    """Whether b_dec is subtracted from the encoder's input."""
    lookup: Lookup | None = None
    transcodes: bool = False
    """Whether it reconstructs something else than it reads."""
    sites: int = 1
    """How many sites of equal width lie side by side in what it reads and gives (a crosscoder)."""

    @property
    def d(self) -> int:
        """Numbers of an input."""
        return self.tensors["W_enc"].shape[0]

    @property
    def d_out(self) -> int:
        """Numbers of a reconstruction."""
        return self.tensors["W_dec"].shape[1]

    @property
    def places(self) -> int:
        """How many places lie side by side in what it gives."""
        return self.sites

    @property
    def width(self) -> int:
        """How many latents it has."""
        return self.tensors["W_enc"].shape[1]

    def encode(self, x_BD: Tensor, tokens_B: Tensor | None = None) -> Tensor:
        """[B, F]: the latents of raw activations, 0 where they do not fire. Token ids are needed with a lookup."""
        margin_BF, magnitude_BF = self.margins(x_BD, tokens_B)
        f_BF = magnitude_BF.relu()
        return f_BF if margin_BF is magnitude_BF else f_BF * (margin_BF > 0)

    def margins(self, x_BD: Tensor, tokens_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, F] twice: a latent fires where both are above 0, and then with the second."""
        return self.form.margins(self.tensors, self._read(x_BD, tokens_B) @ self.tensors["W_enc"])

    def decode(self, f_BF: Tensor, tokens_B: Tensor | None = None, x_BD: Tensor | None = None) -> Tensor:
        """[B, D]: the reconstruction. Token ids are needed with a lookup, inputs with a skip."""
        return self.completed(f_BF @ self.tensors["W_dec"], tokens_B, x_BD)

    def row(self, latent: int) -> Tensor:
        """[D of the output]: what a latent adds for an activation of 1."""
        return self.tensors["W_dec"][latent]

    def coded(self, x_BD: Tensor, tokens_B: Tensor | None = None) -> tuple[Entries, Tensor]:
        """The codes above 0 that `encode` gives, listed, and the reconstructions [B, D]; without gradient."""
        if x_BD.device.type != "cpu":
            f_BF = self.encode(x_BD, tokens_B)
            return above(f_BF), self.decode(f_BF, tokens_B, x_BD)
        fired = self.form.fired(self.tensors, self._read(x_BD, tokens_B))
        return fired, self.decoded(fired, tokens_B, x_BD)

    def decoded(self, codes: Entries, tokens_B: Tensor | None = None, x_BD: Tensor | None = None) -> Tensor:
        """[B, D]: the reconstruction of listed codes; without gradient."""
        decoded_BD = weighted_row_sums(self.tensors["W_dec"], codes.column_N, codes.value_N, codes.offsets)
        return self.completed(decoded_BD, tokens_B, x_BD)

    def _read(self, x_BD: Tensor, tokens_B: Tensor | None) -> Tensor:
        """What W_enc multiplies."""
        if self.lookup is not None and self.lookup.subtract:
            x_BD = x_BD - self._rows(tokens_B)
        return x_BD - self.tensors["b_dec"] if self.subtract_b_dec else x_BD

    def completed(self, x_hat_BD: Tensor, tokens_B: Tensor | None, x_BD: Tensor | None) -> Tensor:
        """Reconstructions of decoder rows alone, with all that is added to them."""
        x_hat_BD = x_hat_BD + self.tensors["b_dec"]
        if "W_skip" in self.tensors:
            if x_BD is None:
                raise ValueError("a transcoder with a skip needs its inputs")
            x_hat_BD = x_hat_BD + x_BD @ self.tensors["W_skip"].T
        return x_hat_BD if self.lookup is None else x_hat_BD + self._rows(tokens_B)

    def about(self, mean_D: Tensor) -> "InferenceSae":
        """The same SAE for x, given that this one is for x - mean."""
        moved = self.giving_about(mean_D)
        return moved if self.subtract_b_dec else moved.reading(1.0, mean_D)

    def subtracting(self) -> "InferenceSae":
        """The same SAE, in tensors for which b_dec is subtracted from the encoder's input."""
        return self if self.subtract_b_dec else self._read_moved(-1.0)

    def plain(self) -> "InferenceSae":
        """The same SAE, in tensors for which nothing is subtracted from the encoder's input."""
        return self._read_moved(1.0) if self.subtract_b_dec else self

    def _read_moved(self, sign: float) -> "InferenceSae":
        moved = self.form.shifted(self.tensors, sign * (self.tensors["b_dec"] @ self.tensors["W_enc"]))
        return replace(self, tensors=self.tensors | moved, subtract_b_dec=not self.subtract_b_dec)

    def giving_about(self, mean_D: Tensor) -> "InferenceSae":
        """The same with mean + its reconstructions."""
        return replace(self, tensors={**self.tensors, "b_dec": self.tensors["b_dec"] + mean_D})

    def reading(self, scale: float | Tensor, mean_D: Tensor | None) -> "InferenceSae":
        """The same for inputs x, given that this one, which subtracts no b_dec, is for scale (x - mean)."""
        assert not self.subtract_b_dec
        t = {**self.tensors, "W_enc": scale * self.tensors["W_enc"]}
        if "W_skip" in t:
            t["W_skip"] = scale * t["W_skip"]
        if mean_D is not None:
            t |= self.form.shifted(t, mean_D @ t["W_enc"])
            if "W_skip" in t:
                t["b_dec"] = t["b_dec"] - t["W_skip"] @ mean_D
        return replace(self, tensors=t)

    def scaled(self, scale_D: Tensor) -> "InferenceSae":
        """The same crosscoder for x, given that this one is for scale x: each number of an input has a scale of its
        own. Codes stay as they are, so decoder rows lose their unit norm."""
        t = self.tensors
        rows = {"W_enc": t["W_enc"] * scale_D[:, None], "W_dec": t["W_dec"] / scale_D, "b_dec": t["b_dec"] / scale_D}
        return replace(self, tensors={**t, **rows})

    def through(self, read_DD: Tensor, give_DD: Tensor) -> "InferenceSae":
        """The same SAE for x, given that this one is for x read_DD and that what it gives times give_DD is wanted; of
        an autoencoder they are each other's inverse. Codes stay as they are, so decoder rows lose their unit norm."""
        t = {**self.tensors, "W_enc": read_DD @ self.tensors["W_enc"]}
        t |= {"W_dec": t["W_dec"] @ give_DD, "b_dec": t["b_dec"] @ give_DD}
        if "W_skip" in t:
            t["W_skip"] = give_DD.T @ t["W_skip"] @ read_DD.T
        lookup = self.lookup and replace(self.lookup, rows_VD=self.lookup.rows_VD @ give_DD)
        return replace(self, tensors=t, lookup=lookup)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "InferenceSae":
        """The same SAE with every tensor changed."""
        lookup = self.lookup if self.lookup is None else replace(self.lookup, rows_VD=change(self.lookup.rows_VD))
        return replace(self, tensors={name: change(tensor) for name, tensor in self.tensors.items()}, lookup=lookup)

    @property
    def decoder_norms(self) -> Tensor:
        """[F]: of each latent's decoder rows, summed over sites."""
        return Spaces(sites=self.sites).decoder_norms(self.tensors["W_dec"])

    def as_saved(self) -> "InferenceSae":
        """The same SAE in the form that files have of it."""
        if not self.transcodes:
            return self
        form, tensors = self.form.transcoder(self.tensors)
        return replace(self, form=form, tensors=tensors)

    def _rows(self, tokens_B: Tensor | None) -> Tensor:
        assert self.lookup is not None
        if tokens_B is None:
            raise ValueError("a tokenized SAE needs the token ids of its inputs")
        return self.lookup.rows_VD.index_select(0, tokens_B)
