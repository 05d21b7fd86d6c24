"""ReLU: f = ReLU(z + b_enc)."""

from typing import ClassVar

from torch import Tensor

from sae_sweep.kernels.cpu.products import products_above
from sae_sweep.kernels.entries import Entries
from sae_sweep.saes.form import InferenceForm, Tensors


class ReluForm(InferenceForm):
    """Latents fire where pre-activations are above 0."""

    vectors: ClassVar[tuple[str, ...]] = ("b_enc",)
    saelens, saelens_transcoder = "standard", "transcoder"

    def margins(self, t: Tensors, z_BF: Tensor) -> tuple[Tensor, Tensor]:
        pre_BF = z_BF + t["b_enc"]
        return pre_BF, pre_BF

    def fired(self, t: Tensors, read_BD: Tensor) -> Entries:
        return products_above(read_BD, t["W_enc"].T, 0.0, t["b_enc"])

    def shifted(self, t: Tensors, shift_F: Tensor) -> dict[str, Tensor]:
        return {"b_enc": t["b_enc"] - shift_F}

    def compared(self, own: Tensors, margin_bF: Tensor, magnitude_bF: Tensor) -> Tensor:
        return margin_bF.flatten()

    def trimmed(self, t: Tensors, cut: Tensor) -> dict[str, Tensor]:
        return {"b_enc": t["b_enc"] - cut}


Form = ReluForm
