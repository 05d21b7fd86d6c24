"""Cross-layer transcoders at inference (Ameisen et al. 2025, "Circuit Tracing", methods): with x^l what layer l's MLP
reads and y^l what it gives,

    f^l = form(W_enc^l x^l + b_enc^l),   y_hat^m = sum_{l <= m} W_dec^{l->m} f^l + b_dec^m

Layers lie side by side in inputs, codes and reconstructions. W_enc is [D, F], a column reads its own layer; W_dec
[R, D] has the rows that `Spaces.layers` says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Entries, above, side_by_side
from sae_sweep.kernels.sparse import weighted_row_sums
from sae_sweep.saes.form import Tensors
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.saes.layered_codes import ends_summed
from sae_sweep.saes.spaces import Spaces


@dataclass(frozen=True)
class CrossLayerSae(InferenceSae):
    """Its form is that of each layer. It subtracts no b_dec."""

    layers: int = 1

    @property
    def d(self) -> int:
        return self.layers * self.tensors["W_enc"].shape[0]

    @property
    def d_out(self) -> int:
        return len(self.tensors["b_dec"])

    @property
    def places(self) -> int:
        return self.layers

    @property
    def spaces(self) -> Spaces:
        """What its latents read and write."""
        return Spaces(same=False, layers=self.layers)

    @property
    def decoder_norms(self) -> Tensor:
        """[F]: of all that each latent writes, end to end."""
        return self.spaces.decoder_norms(self.tensors["W_dec"])

    def row(self, latent: int) -> Tensor:
        """[D of the output]: what a latent writes, with zeros at the layers before the one it reads."""
        own, rest = divmod(latent, self.width // self.layers)
        row_d = self.spaces.tables(self.tensors["W_dec"])[own][rest]
        return torch.cat([row_d.new_zeros(self.d_out - len(row_d)), row_d])

    def margins(self, x_BD: Tensor, tokens_B: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found = [self.form.margins(t, x_Bd @ t["W_enc"]) for t, x_Bd in self._by_layer(x_BD)]
        margins, magnitudes = zip(*found, strict=True)
        return torch.cat(margins, dim=1), torch.cat(magnitudes, dim=1)

    def decode(self, f_BF: Tensor, tokens_B: Tensor | None = None, x_BD: Tensor | None = None) -> Tensor:
        tables = self.spaces.tables(self.tensors["W_dec"])
        found = [f_Bf @ table for f_Bf, table in zip(f_BF.chunk(self.layers, dim=1), tables, strict=True)]
        return self.completed(ends_summed(found), tokens_B, x_BD)

    def coded(self, x_BD: Tensor, tokens_B: Tensor | None = None) -> tuple[Entries, Tensor]:
        if x_BD.device.type != "cpu":
            f_BF = self.encode(x_BD)
            return above(f_BF), self.decode(f_BF)
        fired = [self.form.fired(t, x_Bd.contiguous()) for t, x_Bd in self._by_layer(x_BD)]
        tables = self.spaces.tables(self.tensors["W_dec"])
        found = [
            weighted_row_sums(table, own.column_N, own.value_N, own.offsets)
            for own, table in zip(fired, tables, strict=True)
        ]
        reconstructed_BD = self.completed(ends_summed(found), tokens_B, x_BD)
        return side_by_side(fired, self.width // self.layers), reconstructed_BD

    def _by_layer(self, x_BD: Tensor) -> list[tuple[Tensors, Tensor]]:
        """Of each layer, the tensors that encode, and what they read."""
        encodes = {name: self.tensors[name].chunk(self.layers, dim=-1) for name in ("W_enc", *self.form.vectors)}
        inputs = x_BD.chunk(self.layers, dim=1)
        return [({name: parts[layer] for name, parts in encodes.items()}, x) for layer, x in enumerate(inputs)]

    def in_raw_units(
        self, reads: Sequence[float], read_D: Tensor | None, writes: Sequence[float], written_D: Tensor | None
    ) -> "CrossLayerSae":
        """The same for raw activations, given that this one is for each layer's times a scale, about a mean where that
        is given. Codes stay as they are, so that rows lose their unit norm."""
        t = self.tensors
        own, like = self.width // self.layers, t["b_dec"]
        scale_F = like.new_tensor(reads).repeat_interleave(own)
        W_enc = t["W_enc"] * scale_F
        made = {**t, "W_enc": W_enc}
        if read_D is not None:
            shifts = zip(read_D.chunk(self.layers), W_enc.chunk(self.layers, dim=1), strict=True)
            made |= self.form.shifted(made, torch.cat([mean_d @ W_df for mean_d, W_df in shifts]))
        divisor_D = like.new_tensor(writes).repeat_interleave(self.d_out // self.layers)
        made["b_dec"] = t["b_dec"] / divisor_D + (0 if written_D is None else written_D)
        tables = [table / divisor_D[-table.shape[1] :] for table in self.spaces.tables(t["W_dec"])]
        made["W_dec"] = torch.cat([table.reshape(-1, t["W_dec"].shape[1]) for table in tables])
        return replace(self, tensors=made)


def cross_layer(fold: Callable[[Tensors], InferenceSae], p: Tensors, spaces: Spaces) -> CrossLayerSae:
    """One member as it is used, given how its architecture folds one; for what it trains on."""
    norm_F = spaces.decoder_norms(p["W_dec"])
    sae = fold({**p, "W_dec": norm_F[:, None]})  # of decoder rows folding asks the norms alone, and divides by them
    factor_F = torch.where(norm_F > 0, sae.tensors["W_dec"][:, 0] / norm_F, 1.0)
    factors = factor_F.chunk(spaces.layers)
    tables = [table * own_F[:, None] for table, own_F in zip(spaces.tables(p["W_dec"]), factors, strict=True)]
    W_dec = torch.cat([table.reshape(-1, p["W_dec"].shape[1]) for table in tables])
    tensors = {**sae.tensors, "W_dec": W_dec}
    return CrossLayerSae(sae.form.each(spaces.layers), tensors, False, transcodes=True, layers=spaces.layers)
