"""How sparse codes are, and how often each latent fires."""

import torch
from torch import Tensor

from sae_sweep.evaluation.jackknife import ratio_standard_error
from sae_sweep.kernels.entries import Entries


class Sparsity:
    """Accumulates one member's sparsity metrics over R held-out sequences."""

    def __init__(self, width: int, decoder_norm_F: Tensor, sequences: int, device: torch.device):
        self._norm_F = decoder_norm_F.double()
        # Whole numbers: their sums are the same in any order.
        self._fired_F = torch.zeros(width, dtype=torch.int64, device=device)
        self._l1 = torch.zeros((), dtype=torch.float64, device=device)
        self._fired_R = torch.zeros(sequences, dtype=torch.int64, device=device)
        self._counted_R = torch.zeros(sequences, dtype=torch.int64, device=device)

    def update(self, fired: Entries, sequence_B: Tensor) -> None:
        """The codes above 0 of B counted tokens, and the sequence each token belongs to."""
        offsets, latent_N, f_N = fired.offsets, fired.column_N, fired.value_N.double()
        self._fired_F.index_add_(0, latent_N, torch.ones_like(latent_N, dtype=torch.int64))
        self._l1 += f_N @ self._norm_F.index_select(0, latent_N)
        self._fired_R.index_add_(0, sequence_B, offsets.diff().long())
        self._counted_R.index_add_(0, sequence_B, torch.ones_like(sequence_B, dtype=torch.int64))

    @property
    def tokens(self) -> int:
        """Counted tokens so far."""
        return int(self._counted_R.sum().item())

    @property
    def rows(self) -> dict[str, Tensor]:
        """[R]: counted tokens, and codes above 0, of each sequence."""
        return {"tokens": self._counted_R.double(), "l0": self._fired_R.double()}

    @property
    def frequency_F(self) -> Tensor:
        """[F]: the share of counted tokens each latent fires on; 0 without any."""
        return self._fired_F.double() / self._counted_R.sum().clamp(min=1)

    def metrics(self) -> dict[str, float | None]:
        """The metrics of the codes, as fractions and per token; None where no token was added."""
        tokens, rows = self.tokens, self.rows
        if tokens == 0:
            return dict.fromkeys(("l0", "l0_se", "l1", "alive", "density_over_1pct", "density_over_10pct"))
        frequency_F = self.frequency_F
        return {
            "l0": rows["l0"].sum().item() / tokens,
            "l0_se": ratio_standard_error(rows["l0"], rows["tokens"]),
            "l1": self._l1.item() / tokens,
            "alive": (frequency_F > 0).double().mean().item(),
            "density_over_1pct": (frequency_F > 0.01).double().mean().item(),
            "density_over_10pct": (frequency_F > 0.1).double().mean().item(),
        }
