"""Activations must be numbers: one that is not would spread to the means, and from them to every member."""

import torch
from torch import Tensor

from sae_sweep.errors import ConfigError

ROWS_AT_ONCE = 65_536
"""A boolean as large as a block would cost memory it may not leave: one number is kept of so many rows."""


def check_finite(x_BD: Tensor, source: str, where: str, *, stored: bool = False) -> None:
    """Raises ConfigError where a model gave an infinite or NaN activation at a hook, the `source`, or where `stored`
    data hold one; `where` says what was being read."""
    parts = torch.split(x_BD.reshape(-1, x_BD.shape[-1]), ROWS_AT_ONCE)
    if not bool(torch.stack([x.isfinite().all() for x in parts]).all()):
        whose, mend = "the model gives", "check its weights, or take a wider model.dtype"
        if stored:
            whose, mend = "it has", "leave such rows out of it"
        raise ConfigError(f"{source}: {whose} infinite or NaN activations in {where}; {mend}")
