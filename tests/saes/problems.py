"""Small ragged banks with parameters away from any symmetry, at the densities that matter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.gated import GatedConfig
from sae_sweep.architectures.standard import StandardConfig
from sae_sweep.architectures.topk import TopKConfig
from sae_sweep.saes.bank import Bank, Chunk
from sae_sweep.saes.base import Losses, Parameters
from sae_sweep.saes.registry import maths_of
from tests.saes import reference
from tests.saes.reference import Terms, Weights

KINDS = ("bricken", "april", "gated", "topk")
DENSITIES = ("none", "rare", "half", "all")
D, TOKENS = 7, 40
WIDTHS = (24, 9, 16)
COEFFICIENTS = (0.3, 0.0, 1.7)
KS = {"none": (3, 2, 1), "rare": (1, 1, 1), "half": (12, 4, 8), "all": WIDTHS}
VARIANCE = 5.5


def config(kind: str, k: int = 4) -> SaeConfig:
    common = {"expansion": None, "width": 1, "l0": None, "input_scale": "none"}
    l1 = {"l1": 1.0, "coefficient_unit": "sum", "resample": True}
    if kind == "topk":
        return TopKConfig("topk", **common, k=k, auxk=3, auxk_coefficient=1 / 32, dead_after_tokens=1e7)
    if kind == "gated":
        return GatedConfig("gated", **common, **l1)
    return StandardConfig("standard", **common, **l1, variant=kind)


@dataclass
class Problem:
    """A bank, its inputs, and each member's own parameters."""

    kind: str
    configs: list[SaeConfig]
    parameters: list[Parameters]
    x_BD: Tensor
    dead: list[Tensor]

    def gradients(self, dense: bool, factor: float = 1.0) -> tuple[Losses, list[Parameters]]:
        """What the bank computes, with `factor` x COEFFICIENTS."""
        bank = Bank(maths_of(self.configs[0]), self.configs, self.parameters)
        coefficient_M = factor * torch.tensor(COEFFICIENTS[: len(self.configs)], dtype=self.x_BD.dtype)
        chunk = Chunk(0, len(self.configs), dense)
        return bank.gradients(self.x_BD, chunk, coefficient_M, torch.cat(self.dead), VARIANCE)

    def expected(self, member: int) -> tuple[Terms, Weights]:
        """The terms and gradients of one member by the reference, in float64."""
        p = reference.leaves(self.parameters[member])
        terms = terms_of(self.configs[member], p, self.x_BD.double(), self.dead[member])
        return terms, reference.gradients(p, terms.total(COEFFICIENTS[member]))


def terms_of(member: SaeConfig, p: Weights, x_BD: Tensor, dead_F: Tensor) -> Terms:
    if isinstance(member, TopKConfig):
        assert member.k is not None
        assert member.auxk is not None
        return reference.topk(p, x_BD, member.k, dead_F, member.auxk, member.auxk_coefficient, VARIANCE)
    if isinstance(member, GatedConfig):
        return reference.gated(p, x_BD)
    assert isinstance(member, StandardConfig)
    return {"bricken": reference.bricken, "april": reference.april}[member.variant](p, x_BD)


def problem(kind: str, density: str = "half", dtype: torch.dtype = torch.float64, dead: bool = False) -> Problem:
    """Three members of different width; with `dead`, some latents of the second alone count as dead."""
    generator = torch.Generator().manual_seed(KINDS.index(kind) * 10 + DENSITIES.index(density))
    x_BD = torch.randn(TOKENS, D, generator=generator, dtype=torch.float64) + 0.5
    parameters = [parameters_of(kind, width, x_BD, density, generator) for width in WIDTHS]
    dead_masks = [torch.zeros(width, dtype=torch.bool) for width in WIDTHS]
    if dead:
        dead_masks[1][[0, 2, 3, 7, 8]] = True
    return Problem(
        kind,
        [config(kind, k) for k in KS[density]],
        [{name: t.to(dtype) for name, t in p.items()} for p in parameters],
        x_BD.to(dtype),
        dead_masks,
    )


def parameters_of(kind: str, width: int, x_BD: Tensor, density: str, generator: torch.Generator) -> Parameters:
    """Rows of no special norm, b_dec not 0, and a bias that makes latents fire as often as `density` says."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    p = {"W_enc": randn(width, D) * 0.6, "W_dec": randn(width, D) * 0.4, "b_dec": randn(D) * 0.7}
    centre = torch.zeros(D, dtype=torch.float64) if kind == "april" else p["b_dec"]
    bias = threshold_bias((x_BD - centre) @ p["W_enc"].t(), density)
    if kind == "gated":
        p |= {"b_gate": bias, "r_mag": randn(width) * 0.3, "b_mag": randn(width) * 0.5}
        if density == "all":
            p["b_mag"] = bias * p["r_mag"].exp() + 0.5
    else:
        p["b_enc"] = bias
    return p


def threshold_bias(z_BF: Tensor, density: str) -> Tensor:
    """A bias per latent such that no, about one in a thousand, half, or every pre-activation is above 0."""
    if density == "none":
        return -z_BF.max(0).values - 0.5
    if density == "all":
        return -z_BF.min(0).values + 0.5
    if density == "half":
        # A different offset each, or the tokens at the medians would be ties.
        return -z_BF.median(0).values + torch.linspace(0.01, 0.05, z_BF.shape[1], dtype=z_BF.dtype)
    # A little below the largest of all, so that what fires is not a difference of nearly equal numbers.
    return torch.full((z_BF.shape[1],), 0.3 - float(z_BF.max()), dtype=z_BF.dtype)
