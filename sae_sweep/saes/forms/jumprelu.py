"""JumpReLU: f = a H(a - threshold) with a = z + b_enc, and 0 where a is below 0; H is the step function."""

from torch import Tensor

from sae_sweep.kernels.cpu.products import products_above
from sae_sweep.kernels.entries import Entries
from sae_sweep.saes.form import Tensors
from sae_sweep.saes.forms.relu import ReluForm


class JumpReluForm(ReluForm):
    """Latents fire where pre-activations are above their thresholds. A cut multiplies all of these."""

    vectors = ("b_enc", "threshold")
    saelens, saelens_transcoder = "jumprelu", "jumprelu_transcoder"

    def margins(self, t: Tensors, z_BF: Tensor) -> tuple[Tensor, Tensor]:
        pre_BF = z_BF + t["b_enc"]
        return pre_BF - t["threshold"], pre_BF

    def fired(self, t: Tensors, read_BD: Tensor) -> Entries:
        return products_above(read_BD, t["W_enc"].T, t["threshold"].relu(), t["b_enc"])

    def trims(self, t: Tensors) -> bool:
        """Not where a threshold was never learned."""
        return bool((t["threshold"] > 0).all())

    def compared(self, own: Tensors, margin_bF: Tensor, magnitude_bF: Tensor) -> Tensor:
        return (magnitude_bF / own["threshold"])[magnitude_bF > 0]

    def trimmed(self, t: Tensors, cut: Tensor) -> dict[str, Tensor]:
        return {"threshold": t["threshold"] * cut}


Form = JumpReluForm
