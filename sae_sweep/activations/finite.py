"""Activations must be numbers: one that is not would spread to the means, and from them to every member."""

import torch
from torch import Tensor

from sae_sweep.errors import ConfigError

ROWS_AT_ONCE = 65_536
"""A boolean as large as a block would cost memory it may not leave: one number is kept of so many rows."""


def check_finite(x_BD: Tensor, hook: str, where: str) -> None:
    """Raises ConfigError where a model gave an infinite or NaN activation; `where` says what it was reading."""
    parts = torch.split(x_BD.reshape(-1, x_BD.shape[-1]), ROWS_AT_ONCE)
    if not bool(torch.stack([x.isfinite().all() for x in parts]).all()):
        raise ConfigError(
            f"{hook}: the model gives infinite or NaN activations in {where}; check its weights, or take a wider"
            " model.dtype"
        )
