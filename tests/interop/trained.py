"""Members as training leaves them: parameters of c x activations, with the answers in raw units worked out apart."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.gated import GatedConfig
from sae_sweep.architectures.standard import StandardConfig
from sae_sweep.architectures.topk import TopKConfig
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.saes.registry import maths_of

D, WIDTH, K = 24, 60, 7
SCALE = 0.037
"""c: what raw activations were multiplied by in training."""

_COMMON: dict[str, Any] = {"expansion": None, "width": WIDTH, "l0": None, "input_scale": "unit"}
_L1: dict[str, Any] = {"l1": 1.0, "coefficient_unit": "sum", "resample": False}
CONFIGS: dict[str, SaeConfig] = {
    "bricken": StandardConfig(architecture="standard", variant="bricken", **_COMMON, **_L1),
    "april": StandardConfig(architecture="standard", variant="april", **_COMMON, **_L1),
    "gated": GatedConfig(architecture="gated", **_COMMON, **_L1),
    "topk": TopKConfig(architecture="topk", k=K, auxk=None, auxk_coefficient=1 / 32, dead_after_tokens=1e7, **_COMMON),
}


@dataclass(frozen=True)
class TrainedMember:
    """Float32 parameters in the bank's layout: a latent is a row of W_enc and of W_dec."""

    name: str
    parameters: dict[str, Tensor]

    @property
    def config(self) -> SaeConfig:
        return CONFIGS[self.name]

    def folded(self) -> InferenceSae:
        return maths_of(self.config).fold(self.config, self.parameters, SCALE)

    def answers(self, raw_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Codes, in the raw units of unit decoder rows, and reconstructions, in float64, from the papers' equations."""
        p = {name: tensor.double() for name, tensor in self.parameters.items()}
        x_BD = SCALE * raw_BD.double()
        z_BF = (x_BD if self.name == "april" else x_BD - p["b_dec"]) @ p["W_enc"].T
        if self.name == "gated":
            f_BF = (z_BF + p["b_gate"] > 0) * torch.relu(p["r_mag"].exp() * z_BF + p["b_mag"])
        else:
            f_BF = torch.relu(z_BF + p["b_enc"])
        if self.name == "topk":
            least_B1 = f_BF.sort(dim=1, descending=True).values[:, K - 1 : K]
            f_BF = f_BF * (f_BF >= least_B1)
        x_hat_BD = f_BF @ p["W_dec"] + p["b_dec"]
        return f_BF * p["W_dec"].norm(dim=1) / SCALE, x_hat_BD / SCALE


def trained_member(name: str, seed: int) -> TrainedMember:
    """Random parameters for inputs of mean square norm 1; decoder rows of unit norm where training keeps them so."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rows = normal(WIDTH, D)
    rows /= rows.norm(dim=1, keepdim=True)
    parameters = {
        "W_enc": rows + 0.1 * normal(WIDTH, D),
        "W_dec": rows * (0.1 + normal(WIDTH, 1).abs()) if name == "april" else rows,
        "b_dec": 0.1 * normal(D),
    }
    biases = ("b_gate", "b_mag", "r_mag") if name == "gated" else ("b_enc",)
    return TrainedMember(name, parameters | {bias: 0.2 * normal(WIDTH) for bias in biases})


def raw_activations(tokens: int, seed: int) -> Tensor:
    """[tokens, D] whose mean square norm is 1 once scaled."""
    return torch.randn(tokens, D, generator=torch.Generator().manual_seed(seed)) / (SCALE * D**0.5)
