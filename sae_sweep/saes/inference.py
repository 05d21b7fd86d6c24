"""A member as it is judged, saved and used: a plain SAE on raw activations, in the field's common layout.

The tensors are exactly those of `sae_weights.safetensors`, so every number in metrics.json is measured on what
is on disk.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class InferenceSae:
    """W_enc is [D, F], W_dec [F, D] with unit rows. `architecture` says which activation: see `encode`."""

    architecture: str
    """standard, gated, topk or jumprelu."""
    tensors: dict[str, Tensor]
    subtract_b_dec: bool
    """Whether b_dec is subtracted from the encoder's input."""
    k: int | None

    @property
    def d(self) -> int:
        return self.tensors["W_enc"].shape[0]

    @property
    def width(self) -> int:
        return self.tensors["W_enc"].shape[1]

    def encode(self, x_BD: Tensor) -> Tensor:
        """[B, F]: the latents of raw activations, 0 where they do not fire."""
        t = self.tensors
        z_BF = (x_BD - t["b_dec"] if self.subtract_b_dec else x_BD) @ t["W_enc"]
        if self.architecture == "gated":
            return (z_BF + t["b_gate"] > 0) * torch.relu(z_BF * t["r_mag"].exp() + t["b_mag"])
        pre_BF = z_BF + t["b_enc"]
        if self.architecture == "topk":
            assert self.k is not None
            top = pre_BF.topk(self.k, dim=1, sorted=False)
            return torch.zeros_like(pre_BF).scatter_(1, top.indices, top.values.relu())
        if self.architecture == "jumprelu":
            return pre_BF.relu() * (pre_BF > t["threshold"])
        return pre_BF.relu()

    def decode(self, f_BF: Tensor) -> Tensor:
        """[B, D]: the reconstruction."""
        return f_BF @ self.tensors["W_dec"] + self.tensors["b_dec"]
