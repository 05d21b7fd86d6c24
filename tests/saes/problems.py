"""Small ragged banks with parameters away from any symmetry, at the densities that matter."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.batchtopk.facts import BatchTopKConfig
from sae_sweep.architectures.gated.facts import GatedConfig
from sae_sweep.architectures.hierarchical_topk.facts import HierarchicalTopKConfig
from sae_sweep.architectures.jumprelu.facts import JumpReluConfig
from sae_sweep.architectures.maths import maths_of
from sae_sweep.architectures.ortsae.facts import OrtSaeConfig
from sae_sweep.architectures.p_anneal.facts import PAnnealConfig
from sae_sweep.architectures.prefixes import PrefixConfig
from sae_sweep.architectures.standard.facts import StandardConfig
from sae_sweep.architectures.topk.facts import TopKConfig
from sae_sweep.saes.bank import Bank, Batch, Chunk
from sae_sweep.saes.base import Clock, Losses, Parameters, Step
from sae_sweep.saes.nested import prefix_sizes
from tests.saes import reference, reference_jumprelu, reference_topk
from tests.saes.kinds import KINDS, NO_PRE_BIAS, configs
from tests.saes.reference import Terms, Weights

DENSITIES = ("none", "rare", "half", "all")
D, TOKENS, VOCABULARY = 7, 40, 6
WIDTHS = (24, 9, 16)
COEFFICIENTS = (0.3, 0.0, 1.7)
KS = {"none": (3, 2, 1), "rare": (1, 1, 1), "half": (12, 4, 8), "all": WIDTHS}
VARIANCE = 5.5

CLOCKS = (Clock(400, 1000, 1), Clock(0, 1000, 2), Clock(799, 1000, 3))
EXPONENTS = (0.6, 1.0, 0.28)
"""What p_anneal's exponent is at those steps: it falls from 1 to 0.2 in ten updates over the first 800."""
SCALES = (1.3, 1.0, 0.7)
THRESHOLDS = (0.4, 0.1, 0.7)
"""Of batchtopk and matryoshka at inference, as the step before left them."""


@dataclass
class Problem:
    """A bank, its inputs, and each member's own parameters."""

    kind: str
    configs: list[SaeConfig]
    parameters: list[Parameters]
    x_BD: Tensor
    dead: list[Tensor]

    lookup: Tensor | None = None
    """[M, V, D]: every member's table, where it is frozen."""

    @property
    def coefficient_M(self) -> Tensor:
        return torch.tensor(COEFFICIENTS[: len(self.configs)], dtype=self.x_BD.dtype)

    @property
    def token_B(self) -> Tensor:
        return (torch.arange(len(self.x_BD)) ** 2 + 1) % VOCABULARY

    def buffers(self, member: int) -> Parameters:
        """One member's, as some step before left them."""
        own = {
            name: t.to(self.x_BD.dtype)
            for name, t in maths_of(self.configs[member]).buffers(self.configs[member]).items()
        }
        for name, values in (("scale", SCALES), ("threshold", THRESHOLDS)):
            if name in own:
                own[name] = torch.tensor(values[member], dtype=self.x_BD.dtype)
        return own if self.lookup is None else own | {"lookup": self.lookup[member]}

    def bank(self) -> Bank:
        members = range(len(self.configs))
        return Bank(maths_of(self.configs[0]), self.configs, self.parameters, [self.buffers(m) for m in members])

    def step(self, dense: bool) -> Step:
        bank, members = self.bank(), len(self.configs)
        return Step(bank.configs, bank.layout, dense, torch.cat(self.dead), VARIANCE, CLOCKS[:members], bank.buffers)

    def leaves(self) -> Parameters:
        """The parameters end to end, to differentiate with respect to."""
        return {name: t.requires_grad_() for name, t in self.bank().storage.items()}

    def gradients(self, dense: bool, factor: float = 1.0) -> tuple[Losses, list[Parameters]]:
        """What the bank computes, with `factor` x COEFFICIENTS."""
        chunk, clocks = Chunk(0, len(self.configs), dense), CLOCKS[: len(self.configs)]
        batch, dead_F = Batch(self.x_BD, self.token_B), torch.cat(self.dead)
        return self.bank().gradients(batch, chunk, factor * self.coefficient_M, dead_F, VARIANCE, clocks)

    def expected(self, member: int) -> tuple[Terms, Weights]:
        """The terms and gradients of one member by the reference, in float64."""
        p = reference.leaves(self.parameters[member])
        x_BD, target_BD = self.x_BD.double(), None
        if self.configs[member].lookup != "none":
            table = p if self.lookup is None else {"lookup": self.lookup[member].double()}
            x_BD, target_BD = reference.tokenized(table, x_BD, self.token_B, self.configs[member].lookup_subtract)
        terms = terms_of(self.configs[member], p, x_BD, self.dead[member], member, target_BD)
        return terms, reference.gradients(p, terms.total(COEFFICIENTS[member]))

    def alone(self, member: int) -> "Problem":
        """A bank of one of them; it is at the first one's step."""
        own = slice(member, member + 1)
        table = None if self.lookup is None else self.lookup[own]
        return Problem(self.kind, self.configs[own], self.parameters[own], self.x_BD, self.dead[own], table)

    def tokenized(self, lookup: str, subtract: bool) -> "Problem":
        """The same with a table per member: the inputs move by it, so latents fire about as often as before."""
        generator = torch.Generator().manual_seed(77)
        shape = (len(self.configs), VOCABULARY, D)
        table_MVD = (0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(self.x_BD.dtype)
        return replace(
            self,
            configs=[replace(c, lookup=lookup, lookup_subtract=subtract) for c in self.configs],
            parameters=[
                p | ({"lookup": t} if lookup == "learned" else {})
                for p, t in zip(self.parameters, table_MVD, strict=True)
            ],
            lookup=table_MVD if lookup == "frozen" else None,
        )


def terms_of(
    member: SaeConfig, p: Weights, x_BD: Tensor, dead_F: Tensor, index: int = 0, target_BD: Tensor | None = None
) -> Terms:
    """One member's terms by the reference; `index` is its place in a problem."""
    whole = whole_terms_of(member, p, x_BD, dead_F, index, target_BD)
    if not isinstance(member, PrefixConfig) or member.groups == 1:
        return whole
    prefixes = prefix_sizes(member, len(p["W_enc"]), CLOCKS[index])
    return reference_topk.with_prefixes(whole, p, x_BD, prefixes, target_BD)


def whole_terms_of(
    member: SaeConfig, p: Weights, x_BD: Tensor, dead_F: Tensor, index: int, target_BD: Tensor | None
) -> Terms:
    """The same without prefixes."""
    if isinstance(member, TopKConfig):
        assert member.k is not None
        assert member.auxk is not None
        knobs = (dead_F, member.auxk, member.auxk_coefficient, VARIANCE, target_BD)
        if isinstance(member, HierarchicalTopKConfig):
            return reference_topk.hierarchical(p, x_BD, budgets(member.k, member.budgets), *knobs)
        if isinstance(member, OrtSaeConfig):
            own = chunks(len(p["W_enc"]), member.orthogonality_chunk, CLOCKS[index])
            return reference_topk.orthogonal(p, x_BD, member.k, own, member.orthogonality, *knobs)
        of_kind = reference_topk.batchtopk if isinstance(member, BatchTopKConfig) else reference_topk.topk
        return of_kind(p, x_BD, member.k, *knobs)
    if isinstance(member, JumpReluConfig):
        if member.variant == "anthropic":
            below, c = member.preactivation_coefficient, member.tanh_scale
            return reference_jumprelu.anthropic(p, x_BD, member.bandwidth, below, c, target_BD)
        goals = {"target_l0": member.l0, "quadratic_frequency": (member.l0, member.frequency_scale)}
        goal, variance = goals.get(member.penalty, member.frequency_scale), VARIANCE * member.groups
        return reference_jumprelu.deepmind(p, x_BD, member.bandwidth, member.penalty, goal, target_BD, variance)
    if isinstance(member, PAnnealConfig):
        return reference.p_anneal(p, x_BD, EXPONENTS[index], SCALES[index], target_BD)
    assert isinstance(member, StandardConfig | GatedConfig)
    of_variant = {
        "bricken": reference.bricken,
        "april": reference.april,
        "unit_norm": reference.gated,
        "decoder_norm": reference.gated_decoder_norm,
    }
    return of_variant[member.variant](p, x_BD, target_BD)


def budgets(k: int, which: str) -> list[int]:
    """The numbers of latents that HierarchicalTopK reconstructs with."""
    return [j for j in range(1, k + 1) if which == "all" or j == k or bin(j).count("1") == 1]


def chunks(width: int, most: int, clock: Clock) -> list[list[int]]:
    """The chunks that OrtSAE draws at a step: as few as may be, of about equal size."""
    generator = torch.Generator().manual_seed(clock.seed * 1_000_003 + clock.step)
    order = torch.randperm(width, generator=generator).numpy()
    return [part.tolist() for part in np.array_split(order, math.ceil(width / most))]


def problem(
    kind: str, density: str = "half", dtype: torch.dtype = torch.float64, dead: bool = False, **keys: Any
) -> Problem:
    """Three members of different width; with `dead`, some latents of the second alone count as dead."""
    generator = torch.Generator().manual_seed(KINDS.index(kind) * 10 + DENSITIES.index(density))
    x_BD = torch.randn(TOKENS, D, generator=generator, dtype=torch.float64) + 0.5
    parameters = [parameters_of(kind, width, x_BD, density, generator) for width in WIDTHS]
    dead_masks = [torch.zeros(width, dtype=torch.bool) for width in WIDTHS]
    if dead:
        dead_masks[1][[0, 2, 3, 7, 8]] = True
    return Problem(
        kind,
        configs(kind, KS[density], **keys),
        [{name: t.to(dtype) for name, t in p.items()} for p in parameters],
        x_BD.to(dtype),
        dead_masks,
    )


def parameters_of(kind: str, width: int, x_BD: Tensor, density: str, generator: torch.Generator) -> Parameters:
    """Rows of no special norm, b_dec not 0, and a bias that makes latents fire as often as `density` says."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    p = {"W_enc": randn(width, D) * 0.6, "W_dec": randn(width, D) * 0.4, "b_dec": randn(D) * 0.7}
    centre = torch.zeros(D, dtype=torch.float64) if kind in NO_PRE_BIAS else p["b_dec"]
    bias = threshold_bias((x_BD - centre) @ p["W_enc"].t(), density)
    if kind.startswith("gated"):
        p |= {"b_gate": bias, "r_mag": randn(width) * 0.3, "b_mag": randn(width) * 0.5}
        if density == "all":
            p["b_mag"] = bias * p["r_mag"].exp() + 0.5
    elif kind.startswith("jumprelu"):
        p["log_threshold"] = randn(width) * 0.3 - 0.4
        p["b_enc"] = bias + p["log_threshold"].exp()
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


def losses_of(made: Problem, member: int, dense: bool) -> tuple[Losses, dict[str, Tensor]]:
    """One member's losses, and its parameters as leaves."""
    alone = made.alone(member)
    leaves, x_BD = alone.leaves(), alone.x_BD
    return maths_of(alone.configs[0]).losses(leaves, x_BD, x_BD[:, None], alone.step(dense)), leaves


def gradient(total: Tensor, leaf: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(total.sum(), [leaf], allow_unused=True, retain_graph=True)
    return torch.zeros_like(leaf) if found is None else found
