"""JumpReLU SAE: Rajamanoharan et al. 2024 (arXiv 2407.14435), and Anthropic, January 2025.

Equations: `maths.py`.
"""

from dataclasses import dataclass
from typing import Any

from sae_sweep.architectures.base import Coefficient, PenaltyConfig, above_zero, not_negative, one_of
from sae_sweep.architectures.prefixes import PrefixConfig
from sae_sweep.architectures.recipe import Recipe, Run
from sae_sweep.errors import ConfigError

VARIANTS = ("deepmind", "anthropic")
TARGET_WARMUP_SHARE = 0.25
"""Of a run that aims at an L0: while the target falls. Ours; the paper has none."""
PENALTIES = {"deepmind": ("l0", "target_l0", "frequency", "quadratic_frequency"), "anthropic": ("tanh",)}
AIMED = ("target_l0", "quadratic_frequency")
"""Those of them that have `sae.l0` in them, so that nothing is steered."""


@dataclass(frozen=True)
class JumpReluConfig(PrefixConfig, PenaltyConfig):
    """Config of `sae=jumprelu` and `sae=jumprelu_anthropic`."""

    variant: str
    """`deepmind`: unit-norm decoder, pre-encoder bias, thresholds alone feel the penalty; `anthropic`: free
    decoder, no pre-encoder bias, every parameter feels it."""
    free_decoder: bool
    """deepmind: decoder rows start at unit norm and are not kept there, as anthropic's never are."""
    penalty: str | None
    """deepmind: l0, target_l0 ((L0 / target - 1)^2, the target falling to `sae.l0`), frequency (sum_i p_i (1 + p_i /
    frequency_scale), p_i how often latent i fires in the batch) or quadratic_frequency (target_l0 and the quadratic
    part of frequency with `l0`, frequency with a coefficient), null is target_l0 with `l0` and l0 with a coefficient;
    anthropic: tanh (sum_i tanh(tanh_scale f_i ||W_dec,i||)), which null is too."""
    l0_coefficient: float | None
    """Coefficient of the penalty, in `coefficient_unit`."""
    threshold_init: float | None
    """The first threshold of every latent, in units of the scaled input; null is where several times `sae.l0` latents
    fire on a token, or 1e-3 without that."""
    bandwidth: float | None
    """Width of the straight-through estimator's kernel, in units of the scaled input; null is half of what each of
    `sae.l0` equal activations would be, or of 32 without that."""
    frequency_scale: float
    """With penalty=frequency: the firing frequency above which a latent costs more than its share; with
    quadratic_frequency, times `l0`, what p_i^2 is divided by."""
    tanh_scale: float
    """With penalty=tanh: how soon it saturates."""
    preactivation_coefficient: float
    """Of the loss that lifts the pre-activations below their thresholds; 0 is none."""

    @classmethod
    def knob(cls) -> str:
        return "l0_coefficient"

    @property
    def deepmind(self) -> bool:
        return self.variant == "deepmind"

    @property
    def unit_decoder(self) -> bool:
        return self.deepmind and not self.free_decoder

    @property
    def chosen_penalty(self) -> str:
        """`penalty`, or what it stands for."""
        if self.penalty == "quadratic_frequency" and self.l0 is None:
            return "frequency"
        if self.penalty is not None:
            return self.penalty
        if not self.deepmind:
            return "tanh"
        return "l0" if self.l0 is None else "target_l0"

    def resolved(self, d: int) -> dict[str, Any]:
        return {"penalty": self.chosen_penalty}

    def variations(self) -> tuple[str, ...]:
        nesting = super().variations()
        if not self.deepmind:
            return (self.variant, *nesting)
        free = ("free_decoder",) if self.free_decoder else ()
        if self.penalty == "quadratic_frequency" and self.nested:
            return ("gemma_scope_2", *nesting[1:], *free)
        usual = "l0" if self.l0 is None else "target_l0"
        penalty = () if self.chosen_penalty == usual else (f"penalty_{self.penalty}",)
        return (*penalty, *nesting, *free)

    def coefficient(self) -> Coefficient:
        """What aims at `sae.l0` does it with coefficient 1, so it is never steered."""
        if self.chosen_penalty in AIMED:
            return Coefficient(1.0, "sum", degree=0.0)
        return self.penalised(self.l0_coefficient, degree=0.0)

    @property
    def first_share(self) -> float:
        return 0.02 if self.chosen_penalty == "tanh" else 0.1

    def paper_recipe(self, run: Run) -> Recipe:
        """deepmind: Gemma Scope's (arXiv 2408.05147, section 3.2). anthropic: the January 2025 update's."""
        every = 25_000 if self.resample else 0
        if self.chosen_penalty in AIMED:
            share = TARGET_WARMUP_SHARE
            return Recipe(lr=7e-5, beta1=0.0, sparsity_warmup_fraction=share, resample_every=every)
        if self.deepmind:
            return Recipe(lr=7e-5, beta1=0.0, sparsity_warmup_steps=10_000, resample_every=every)
        return Recipe(lr=2e-4, clip=1.0, lr_decay_fraction=0.2, sparsity_warmup_fraction=1.0, resample_every=every)

    @property
    def pair_bytes(self) -> int:
        return 27 if self.deepmind else 29

    def parameters(self, d: int, width: int) -> dict[str, tuple[int, ...]]:
        rows = {"W_enc": (width, d), "W_dec": (width, d)}
        return {**rows, "b_enc": (width,), "log_threshold": (width,), "b_dec": (d,)}

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.variant, self.unit_decoder, self.chosen_penalty, self.threshold_init)

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        one_of("variant", self.variant, VARIANTS)
        one_of("penalty", self.chosen_penalty, PENALTIES[self.variant])
        if self.penalty == "target_l0" and self.l0 is None:
            raise ConfigError("sae.penalty=target_l0 needs sae.l0, its target; give it, or choose penalty=l0")
        for key in ("threshold_init", "bandwidth", "frequency_scale", "tanh_scale"):
            value = getattr(self, key)
            if value is not None:
                above_zero(key, value)
        not_negative("preactivation_coefficient", self.preactivation_coefficient)


Config = JumpReluConfig
