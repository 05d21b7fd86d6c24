"""What an architecture is before any tensor: its config and the facts the planner and the schedules need.

Each folder beside this file is an architecture: `facts.py` holds its config class and calls it `Config`, `maths.py` its
equations, called `Maths`. Nothing here and in facts imports torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Self

from sae_sweep.architectures.recipe import LARGE_SCALES, RECIPES, Recipe, Run, balanced, tuned
from sae_sweep.errors import ConfigError
from sae_sweep.host.kinds import Kinds

ARCHITECTURES = Kinds("sae_sweep.architectures", "sae_sweep.architectures", inside="facts")
"""The facts of every architecture, by the name that `sae.architecture` takes."""
INPUT_SCALES = ("none", "sqrt_d", "unit", "whiten")
COEFFICIENT_UNITS = ("sum", "mean_d", "mean_d_norm", "mean_square", "variance")
DECODER_INITS = ("random", "data", "covariance", "pca", "kmeans")
ENCODER_INITS = ("transpose", "matched_transpose", "scaled_transpose", "divided_transpose", "random")
B_DEC_INITS = ("zero", "mean", "geometric_median")
LOOKUPS = ("none", "learned", "frozen")
TRAINED = ("all", "encoder", "decoder", "none")


@dataclass(frozen=True)
class Coefficient:
    """What a config says of the coefficient on an architecture's sparsity penalty."""

    value: float | None
    """In `unit`; None where it is to be steered to `sae.l0`."""
    unit: str
    degree: float = 1.0
    """The penalty's degree in the activations: 1 for L1, 0 for L0. Steering starts from a guess that follows it."""
    first_share: float = 1.0
    """Of that guess, which steering starts from."""


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
    """Train on c x: none (c = 1), sqrt_d (mean norm becomes sqrt(d)) or unit (mean squared norm becomes 1); or on W x
    (whiten), W the inverse square root of the covariance (`activations/whitening.py`)."""
    centre: bool
    """Train on c (x - mean) instead; the mean is folded into the biases afterwards."""
    decoder_init: str
    """Directions of the first decoder rows: random, data (sampled inputs about their mean), covariance (draws of a
    normal distribution of theirs), pca (principal components, up and down) or kmeans (centroids about the mean)."""
    encoder_init: str
    """First encoder rows: the decoder's (transpose), those times min(1, 2 d / F) (scaled_transpose), divided by
    the expansion (divided_transpose), or times what makes first reconstructions as large as the inputs
    (matched_transpose); or random ones of the same norms. A transcoder scales random ones alike."""
    b_dec_init: str
    """First decoder bias: zero, mean or geometric_median of the inputs."""
    lookup: str
    """A row per token id added at the decoder (tokenized SAE, arXiv 2502.17332): none, learned or frozen."""
    lookup_scale: float
    """A row starts at this times what the model gives for [BOS, token], less the first decoder bias."""
    lookup_lr: float
    """Adam's learning rate for the rows."""
    lookup_subtract: bool
    """Take the row out of the encoder's input as well."""
    skip: bool
    """A transcoder's linear path beside the latents, W_skip x (Paulo et al. 2025, arXiv 2501.18823)."""
    recipe: str = field(default="paper", kw_only=True)
    """What `training` keys that are null stand for, one of `RECIPES`. Before there was a choice it was paper."""
    trained: str = field(default="all", kw_only=True)
    """What training changes: all, encoder (decoder rows stay as they began), decoder (encoder rows do; biases and
    thresholds are trained) or none. All but `all` are controls, which say what a number is worth (arXiv 2602.14111)."""
    trims = True
    """Whether the last correction of `l0` can change its inference form; no key, but a fact of the architecture."""

    @property
    def control(self) -> bool:
        """Whether it is there to say what a number is worth: nothing trains it, or not its decoder."""
        return self.trained != "all"

    @property
    def nested(self) -> bool:
        """Whether prefixes of its latents must each reconstruct alone (`prefixes.py`)."""
        return False

    @property
    def reconstructions(self) -> int:
        """How many reconstructions of each token its loss is of."""
        return 1

    @property
    def pairs(self) -> bool:
        """Whether it is trained on tokens together with those before them."""
        return False

    @property
    def crosses(self) -> bool:
        """Whether its latents may be those of several layers: nothing in its loss is of single decoder rows."""
        return not (self.nested or self.pairs)

    def check_layers(self, layers: int) -> None:
        """Raises ConfigError where its latents cannot be those of so many layers."""
        if not self.crosses:
            raise ConfigError(
                f"sae={self.method()} is not for cross-layer transcoders; take topk, batchtopk, jumprelu, gated,"
                " standard or p_anneal, without nested prefixes"
            )

    def of_layer(self, layers: int) -> Self:
        """The same for one of so many layers, which have `l0` together."""
        return self if self.l0 is None else replace(self, l0=self.l0 / layers)

    @property
    def whitens(self) -> bool:
        """Whether it is trained on inputs whose numbers are uncorrelated."""
        return self.input_scale == "whiten"

    @property
    def corrected(self) -> bool:
        """Whether a block beyond its last step is read, to set its L0 to `l0`."""
        return self.l0 is not None and self.trims

    @classmethod
    @abstractmethod
    def knob(cls) -> str:
        """The key that sets sparsity when `l0` does not: l1, k, ..."""

    def method(self) -> str:
        """What names and reports call it: the architecture, its variant where it has some, a lookup, a skip; controls
        by what they are."""
        lookup = {"learned": ["tokenized"], "frozen": ["tokenized", "frozen"]}.get(self.lookup, [])
        if self.control:
            base = [] if self.architecture == "topk" else [self.architecture]
            fitted = [] if self.decoder_init == "random" else [self.decoder_init]
            frozen = "encoder" if self.trained == "decoder" else "decoder"
            what = [self.decoder_init] if self.trained == "none" else ["frozen", *fitted, frozen]
            return "_".join([*base, *what, *lookup])
        return "_".join([self.architecture, *self.variations(), *lookup, *(["skip"] if self.skip else [])])

    def variations(self) -> tuple[str, ...]:
        """What tells it from the architecture's usual form, in the words of its keys."""
        return ()

    @abstractmethod
    def paper_recipe(self, run: Run) -> Recipe:
        """The paper's training recipe."""

    def tuned_recipe(self, run: Run) -> Recipe:
        """What works best for a run like this one, biases at the lr of weights."""
        return tuned(run, self.paper_recipe(run))

    def training_recipe(self, run: Run) -> Recipe:
        """The one that `recipe` names."""
        if self.recipe == "paper":
            return self.paper_recipe(run)
        found, large = self.tuned_recipe(run), self.input_scale in LARGE_SCALES
        return balanced(run, found) if self.recipe == "balanced" and large else found

    def resolved(self, d: int) -> dict[str, Any]:
        """What keys that may be null stand for where they are, by key; `d` are the numbers of what is reconstructed."""
        return {}

    def coefficient(self) -> Coefficient | None:
        """The sparsity penalty's coefficient; None where nothing is penalised."""
        return None

    def dead_after(self) -> float:
        """Tokens without firing after which the maths may treat a latent as dead."""
        return inf

    @property
    def pair_bytes(self) -> int:
        """What a step on the dense route, which every member's first one takes, holds per (token, latent) pair:
        pre-activations, the support, values, and what autograd keeps of them and makes on the way back. It is
        measured by `scripts/bench/memory.py`; an architecture that was not takes this."""
        return 30

    def step_numbers(self, d: int, width: int) -> int:
        """How many numbers a step of it holds beside those of tokens and latents."""
        return 0

    def step_flops(self, d: int, width: int) -> float:
        """Floating-point operations of a step beside those that go with its tokens."""
        return 0.0

    def saved_beside(self, width: int) -> int:
        """How many numbers its inference form has that are no parameters of it."""
        return 0

    def parameters(self, d: int, width: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trained tensor but the lookup; latents are rows (W_enc and W_dec are [F, d])."""
        return {"W_enc": (width, d), "b_enc": (width,), "W_dec": (width, d), "b_dec": (d,)}

    def structure(self) -> tuple[object, ...]:
        """What members must share, beside site and batch size, to live in one bank."""
        return (
            self.architecture,
            self.recipe,
            self.input_scale,
            self.centre,
            self.lookup,
            self.lookup_subtract,
            self.skip,
            self.trained,
        )

    def check(self, d: int, width: int) -> None:
        """Raises ConfigError on a combination that cannot be trained; `d` are the numbers of what is reconstructed."""
        one_of("recipe", self.recipe, RECIPES)
        one_of("input_scale", self.input_scale, INPUT_SCALES)
        one_of("decoder_init", self.decoder_init, DECODER_INITS)
        one_of("encoder_init", self.encoder_init, ENCODER_INITS)
        one_of("b_dec_init", self.b_dec_init, B_DEC_INITS)
        one_of("lookup", self.lookup, LOOKUPS)
        one_of("trained", self.trained, TRAINED)
        if self.decoder_init == "pca" and width > 2 * d:
            raise ConfigError(
                f"sae.decoder_init=pca: {d} numbers have {d} components, up and down {2 * d} rows, and the width is"
                f" {width}; take sae.width={2 * d}"
            )
        if self.l0 is not None and not 0 < self.l0 <= width:
            raise ConfigError(f"sae.l0={self.l0:g} must be above 0 and at most the width, {width} latents")
        not_negative("lookup_scale", self.lookup_scale)
        above_zero("lookup_lr", self.lookup_lr)
        if self.lookup_subtract and self.lookup == "none":
            raise ConfigError("sae.lookup_subtract=true subtracts nothing with sae.lookup=none; choose a lookup")


@dataclass(frozen=True)
class PenaltyConfig(SaeConfig):
    """The keys of the architectures whose sparsity comes from a coefficient on a penalty."""

    coefficient_unit: str
    """Of the knob: sum (squared error summed over d), mean_d (averaged over d: times d), mean_d_norm (averaged
    over d, divided by the mean input norm: times d x E||x||), mean_square (divided by the mean squared norm: times
    E||x||^2) or variance (divided by E||x - mean||^2: times that)."""
    resample: bool
    """Whether dead latents are resampled as in Bricken et al. 2023."""

    @property
    def first_share(self) -> float:
        """Where a coefficient is steered from, as a share of the guess: two thirds or so of where it ends at. What is
        pressed as much from the first step on dies."""
        return 0.5

    def coefficient(self) -> Coefficient:
        return self.penalised(getattr(self, self.knob()))

    def penalised(self, value: float | None, degree: float = 1.0) -> Coefficient:
        """The coefficient of a penalty of this degree, steered as its recipe has it."""
        share = 1.0 if self.recipe == "paper" else self.first_share
        return Coefficient(value, self.coefficient_unit, degree, share)

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.resample)

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        one_of("coefficient_unit", self.coefficient_unit, COEFFICIENT_UNITS)
        knob = self.knob()
        not_negative(knob, getattr(self, knob))


@dataclass(frozen=True)
class L1Config(PenaltyConfig):
    """The keys of the architectures that penalise the size of activations."""

    l1: float | None
    """Coefficient of the penalty, in `coefficient_unit`."""

    @classmethod
    def knob(cls) -> str:
        return "l1"


def one_of(key: str, value: str, known: Sequence[str]) -> None:
    """Raises ConfigError unless `sae.key` is one of the known values."""
    if value not in known:
        raise ConfigError(f"sae.{key}={value} is not one of {', '.join(known)}")


def not_negative(key: str, value: float | None) -> None:
    """Raises ConfigError where `sae.key` is below 0."""
    if value is not None and value < 0:
        raise ConfigError(f"sae.{key}={value:g} must not be negative")


def above_zero(key: str, value: float) -> None:
    """Raises ConfigError unless `sae.key` is above 0."""
    if value <= 0:
        raise ConfigError(f"sae.{key}={value:g} must be above 0")
