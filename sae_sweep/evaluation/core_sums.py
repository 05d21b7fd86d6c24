"""What SAEBench's core evaluation finds of reconstructions, by its own definitions where they are not ours.

It averages ratios of single tokens and batches, so a number may depend on how many rows are read at a time: with as
many (`data.rows_per_forward` is its batch_size_prompts) and the same tokens it finds the same. docs/metrics.md has
both definitions side by side.
"""

import torch
from torch import Tensor

SHORT = 1e-4
"""Activations shorter than this are divided by 1."""


class CoreSums:
    """Accumulates one SAE's batches, in float64."""

    def __init__(self, device: torch.device) -> None:
        # ||x||, ||x_hat||, ||x_hat|| / ||x||, error^2 / tokens of the batch, 1 - error^2 / ||x - batch mean||^2: tokens
        self._tokens = torch.zeros(5, dtype=torch.float64, device=device)
        # E||x||^2, E error^2, E||x_hat||^2 / E[x . x_hat]: summed over batches
        self._batches = torch.zeros(3, dtype=torch.float64, device=device)
        self._counts = [0, 0, 1]

    def add(self, x_BD: Tensor, x_hat_BD: Tensor) -> None:
        """The counted tokens of one batch, and their reconstructions."""
        if len(x_BD) == 0:
            return
        x_BD, x_hat_BD = x_BD.double(), x_hat_BD.double()
        norm_B, hat_B, error2_B = x_BD.norm(dim=1), x_hat_BD.norm(dim=1), (x_BD - x_hat_BD).square().sum(1)
        about2_B = (x_BD - x_BD.mean(0)).square().sum(1)
        ratio_B = hat_B / torch.where(norm_B < SHORT, 1.0, norm_B)
        per_token = (norm_B, hat_B, ratio_B, error2_B / len(x_BD), 1 - error2_B / about2_B)
        self._tokens += torch.stack([each.sum() for each in per_token])
        bias = hat_B.square().mean() / (x_BD * x_hat_BD).sum(1).mean()
        self._batches += torch.stack([norm_B.square().mean(), error2_B.mean(), bias])
        self._counts = [self._counts[0] + len(x_BD), self._counts[1] + 1, x_BD.shape[1]]

    def values(self) -> dict[str, float]:
        """By its names; empty where no token was added."""
        tokens, batches, d = self._counts
        if tokens == 0:
            return {}
        norm_in, norm_out, ratio, mse, legacy = (self._tokens / tokens).tolist()
        square, error2, bias = (self._batches / batches).tolist()
        return {
            "l2_norm_in": norm_in,
            "l2_norm_out": norm_out,
            "l2_ratio": ratio,
            "relative_reconstruction_bias": bias,
            "mse": mse,
            "explained_variance": 1 - error2 / (square - (square / d) ** 2),
            "explained_variance_legacy": legacy,
        }
