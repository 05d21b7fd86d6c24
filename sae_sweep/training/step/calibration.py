"""What the training of a bank takes from the first block of its stream."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.activations.scaling import SiteStatistics
from sae_sweep.training.step.objectives import EndToEnd


@dataclass(frozen=True)
class Calibration:
    """What is known of a bank's activations before its first step, and what it computes on and in."""

    sites: tuple[SiteStatistics, ...]
    """Of what members read, about the mean where they centre it; several of a crosscoder, and of several layers."""
    device: torch.device
    dtype: torch.dtype
    """Of parameters, moments and arithmetic: float32, or float64 to compare trajectories."""
    targets: tuple[SiteStatistics, ...] = ()
    """Of what transcoders reconstruct: of each layer, where they have several."""
    unigrams_VD: Tensor | None = None
    """The activations that lookups start from."""
    end_to_end: EndToEnd | None = None
    """The objective of members whose objective is not local."""
