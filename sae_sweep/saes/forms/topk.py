"""Top-k: f = ReLU(TopK_k(z + b_enc))."""

from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from sae_sweep.kernels.cpu.products import largest_products
from sae_sweep.kernels.entries import Entries
from sae_sweep.kernels.selection import row_largest
from sae_sweep.saes.form import Tensors
from sae_sweep.saes.forms.relu import ReluForm


@dataclass(frozen=True)
class TopKForm(ReluForm):
    """The k largest pre-activations of a token fire where they are above 0, so no cut sets how many do."""

    k: int

    saelens, saelens_transcoder = "topk", "topk_transcoder"
    saelens_keys = MappingProxyType({"rescale_acts_by_decoder_norm": False})

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"k={self.k} is not a whole number above 0")

    def shapes(self, d: int, width: int, d_out: int) -> dict[str, tuple[int, ...]]:
        if self.k > width:
            raise ValueError(f"k={self.k} is more than its {width} latents")
        return super().shapes(d, width, d_out)

    def margins(self, t: Tensors, z_BF: Tensor) -> tuple[Tensor, Tensor]:
        largest_BF = row_largest(z_BF + t["b_enc"], self.k)
        return largest_BF, largest_BF

    def fired(self, t: Tensors, read_BD: Tensor) -> Entries:
        W_FD = t["W_enc"].T
        return largest_products(read_BD, W_FD, [len(W_FD)], [self.k], t["b_enc"])

    def at(self, k: int) -> "TopKForm":
        return TopKForm(k)

    def each(self, layers: int) -> "TopKForm":
        """As many latents of each layer fire: none waits for what later ones read."""
        return TopKForm(self.k // layers)

    def trims(self, t: Tensors) -> bool:
        return False


Form = TopKForm
