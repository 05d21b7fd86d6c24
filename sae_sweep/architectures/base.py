"""What an architecture is before any tensor: its config and the facts the planner and the schedules need.

Each file beside this one holds one architecture's config class; its equations are in the file of the same
name in `sae_sweep/saes/`. Nothing here imports torch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import inf

from sae_sweep.errors import ConfigError

INPUT_SCALES = ("none", "sqrt_d", "unit")
COEFFICIENT_UNITS = ("sum", "mean_d", "mean_d_norm")


@dataclass(frozen=True)
class Recipe:
    """How a paper trains its architecture. A `training` key that is null takes the field of its name."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 0.0
    """Largest gradient norm of a member; 0 is none."""
    lr_warmup_steps: int = 1_000
    lr_decay_fraction: float = 0.0
    sparsity_warmup_steps: int = 0
    resample_every: int = 0
    """Steps between the (at most four) resamplings of dead latents; 0 is never."""


@dataclass(frozen=True)
class Coefficient:
    """What a config says of the coefficient on an architecture's sparsity penalty."""

    value: float | None
    """In `unit`; None where it is to be steered to `sae.l0`."""
    unit: str


@dataclass(frozen=True)
class SaeConfig(ABC):
    """The keys every architecture has. An architecture adds its own and says what follows from them."""

    architecture: str
    expansion: float | None
    """Latents = expansion x d; or give `width`."""
    width: int | None
    l0: float | None
    """The L0 to reach, instead of the architecture's own knob."""
    input_scale: str
    """Train on c x: none (c = 1), sqrt_d (mean norm becomes sqrt(d)) or unit (mean squared norm becomes 1)."""

    @classmethod
    @abstractmethod
    def knob(cls) -> str:
        """The key that sets sparsity when `l0` does not: l1, k, ..."""

    def method(self) -> str:
        """What names and reports call it: the architecture, and its variant where it has some."""
        return self.architecture

    @abstractmethod
    def recipe(self, width: int) -> Recipe:
        """The paper's training recipe."""

    def coefficient(self) -> Coefficient | None:
        """The sparsity penalty's coefficient; None where nothing is penalised."""
        return None

    def dead_after(self) -> float:
        """Tokens without firing after which the maths may treat a latent as dead."""
        return inf

    @abstractmethod
    def parameters(self, d: int, width: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trained tensor; latents are rows (W_enc and W_dec are [F, d])."""

    def structure(self) -> tuple[object, ...]:
        """What members must share, beside site and batch size, to live in one bank."""
        return (self.architecture, self.input_scale)

    def check(self, d: int, width: int) -> None:
        """Raises ConfigError on a combination that cannot be trained."""
        if self.input_scale not in INPUT_SCALES:
            raise ConfigError(f"sae.input_scale={self.input_scale} is not one of {', '.join(INPUT_SCALES)}")
        if self.l0 is not None and not 0 < self.l0 <= width:
            raise ConfigError(f"sae.l0={self.l0:g} must be above 0 and at most the width, {width} latents")


@dataclass(frozen=True)
class L1Config(SaeConfig):
    """The keys of the architectures whose sparsity comes from a coefficient on an L1 penalty."""

    l1: float | None
    """Coefficient of the L1 penalty, in `coefficient_unit`."""
    coefficient_unit: str
    """Unit of `l1`: sum (squared error summed over d), mean_d (averaged over d: times d) or mean_d_norm
    (averaged over d and divided by the mean input norm: times d x E||x||)."""
    resample: bool
    """Whether dead latents are resampled as in Bricken et al. 2023."""

    @classmethod
    def knob(cls) -> str:
        return "l1"

    def coefficient(self) -> Coefficient:
        return Coefficient(self.l1, self.coefficient_unit)

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.resample)

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        if self.coefficient_unit not in COEFFICIENT_UNITS:
            raise ConfigError(
                f"sae.coefficient_unit={self.coefficient_unit} is not one of {', '.join(COEFFICIENT_UNITS)}"
            )
        if self.l1 is not None and self.l1 < 0:
            raise ConfigError(f"sae.l1={self.l1:g} must not be negative")
