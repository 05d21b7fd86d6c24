"""Gated (Rajamanoharan et al. 2024, arXiv 2404.16014): f = 1[z + b_gate > 0] ReLU(exp(r_mag) z + b_mag)."""

from torch import Tensor

from sae_sweep.kernels.cpu.products import products_above
from sae_sweep.kernels.entries import Entries, kept
from sae_sweep.saes.form import InferenceForm, Tensors
from sae_sweep.saes.forms.jumprelu import JumpReluForm


class GatedForm(InferenceForm):
    """Latents fire where gate and magnitude are above 0. A cut shifts all gates."""

    vectors = ("b_gate", "b_mag", "r_mag")
    unitless = frozenset({"r_mag"})
    saelens, saelens_transcoder = "gated", "gated_transcoder"

    def margins(self, t: Tensors, z_BF: Tensor) -> tuple[Tensor, Tensor]:
        return z_BF + t["b_gate"], z_BF * t["r_mag"].exp() + t["b_mag"]

    def fired(self, t: Tensors, read_BD: Tensor) -> Entries:
        nothing_F = t["b_gate"].new_zeros(len(t["b_gate"]))
        offsets, latent_N, z_N = products_above(read_BD, t["W_enc"].T, -t["b_gate"], nothing_F)
        magnitude_N = z_N * t["r_mag"].exp()[latent_N] + t["b_mag"][latent_N]
        return kept(Entries(offsets, latent_N, magnitude_N), nothing_F)

    def shifted(self, t: Tensors, shift_F: Tensor) -> dict[str, Tensor]:
        return {"b_gate": t["b_gate"] - shift_F, "b_mag": t["b_mag"] - shift_F * t["r_mag"].exp()}

    def compared(self, own: Tensors, margin_bF: Tensor, magnitude_bF: Tensor) -> Tensor:
        return margin_bF[magnitude_bF > 0]

    def trimmed(self, t: Tensors, cut: Tensor) -> dict[str, Tensor]:
        return {"b_gate": t["b_gate"] - cut}

    def transcoder(self, t: Tensors) -> tuple[JumpReluForm, Tensors]:
        """The JumpReLU that it is (appendix): a = exp(r_mag) z + b_mag fires above theta = b_mag - exp(r_mag) b_gate,
        or above 0."""
        common = {name: tensor for name, tensor in t.items() if name not in self.vectors}
        b_mag, slope_F = t["b_mag"], t["r_mag"].exp()
        threshold_F = (b_mag - slope_F * t["b_gate"]).clamp(min=0)
        return JumpReluForm(), {**common, "W_enc": t["W_enc"] * slope_F, "b_enc": b_mag, "threshold": threshold_F}


Form = GatedForm
