"""How close reconstructions are: sums in float64 over all counted tokens first, ratios once at the end."""

import torch
from torch import Tensor


class Reconstruction:
    """Accumulates one member's reconstruction metrics."""

    def __init__(self, d: int, device: torch.device):
        self._tokens = 0
        # About the first token seen, so that a large mean does not drown the variance.
        self._origin_D: Tensor | None = None
        self._shifted_D = torch.zeros(d, dtype=torch.float64, device=device)
        # ||x - origin||^2, ||x_hat||^2, x . x_hat, ||x - x_hat||^2 and the cosine of x and x_hat, summed over tokens
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)

    def update(self, x_BD: Tensor, x_hat_BD: Tensor) -> None:
        """Add some tokens' activations and their reconstructions."""
        if len(x_BD) == 0:
            return
        x_BD, x_hat_BD = x_BD.double(), x_hat_BD.double()
        if self._origin_D is None:
            self._origin_D = x_BD[0].clone()
        shifted_BD = x_BD - self._origin_D
        hat2_B, inner_B = x_hat_BD.square().sum(1), (x_BD * x_hat_BD).sum(1)
        norms_B = (x_BD.square().sum(1) * hat2_B).sqrt()
        cosine_B = torch.where(norms_B > 0, inner_B / norms_B, 0.0)
        error2 = (x_BD - x_hat_BD).square().sum()
        self._tokens += len(x_BD)
        self._shifted_D += shifted_BD.sum(0)
        self._sums += torch.stack([shifted_BD.square().sum(), hat2_B.sum(), inner_B.sum(), error2, cosine_B.sum()])

    def metrics(self) -> dict[str, float | None]:
        """mse: summed over d, mean over tokens; fvu: about the mean; gamma: E||x_hat||^2 / E[x . x_hat].

        gamma is the relative reconstruction bias of Rajamanoharan et al. 2024, eq. 10: below 1 is shrinkage.
        None where undefined.
        """
        n = self._tokens
        if n == 0:
            return dict.fromkeys(("mse", "fvu", "explained_variance", "cosine", "gamma"))
        shifted2, hat2, inner, error2, cosine = self._sums.tolist()
        centred2 = shifted2 - self._shifted_D.square().sum().item() / n
        fvu = error2 / centred2 if centred2 > 0 else None
        return {
            "mse": error2 / n,
            "fvu": fvu,
            "explained_variance": 1 - fvu if fvu is not None else None,
            "cosine": cosine / n,
            "gamma": hat2 / inner if inner != 0 else None,
        }
