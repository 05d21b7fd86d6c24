"""The one table of metrics: what metrics.json holds, and how each number is named, written, shown and explained.

The terminal, the report, trackers and docs read it. A new metric is a row here, in the order tables have, and the file
that computes it. Every metric is null where it is undefined; ratios are ratios of means, never clipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, Literal

from sae_sweep.config.values import finite

VERSION = 1
"""Of metrics.json's format."""
MODELS = ("first", "second")
"""What numbers of a crosscoder over two models are called that are of one of them (`site.models`)."""


class Shown(Flag):
    """Where a metric is shown."""

    NOWHERE = 0
    TERMINAL = auto()
    """A column of the terminal's table, where a member has it."""
    REPORT = auto()
    """A column of the report's table, and a definition under it, where a member has it."""
    AXIS = auto()
    """A choice for the frontier's y axis."""
    MAP = auto()
    """A heat map of dictionary sizes and sparsities."""


NOWHERE, TERMINAL, REPORT, AXIS, MAP = Shown.NOWHERE, Shown.TERMINAL, Shown.REPORT, Shown.AXIS, Shown.MAP
TABLES = TERMINAL | REPORT


@dataclass(frozen=True)
class Metric:
    """One number of a member."""

    key: str
    title: str
    """The head of its column."""
    name: str
    """In full, as a choice or an axis says it."""
    definition: str
    models: Shown | None = NOWHERE
    """Where it is shown of members on a language model; None where it is undefined for them."""
    toy: Shown | None = NOWHERE
    """The same of members on synthetic activations."""
    unit: str = ""
    """Of the saved value."""
    digits: int = 4
    """After the decimal point, in tables."""
    scale: float = 1.0
    """What tables multiply the saved value by."""
    most: float | None = None
    """The largest value it can take, where there is one."""
    error: str | None = None
    """The key of its standard error."""
    better: Literal["higher", "lower", "one"] | None = None
    is_number: bool = True

    @property
    def choice(self) -> str:
        """The name with a capital letter; a Greek one stays, which is a symbol."""
        return self.name[0].upper() + self.name[1:] if self.name.isascii() else self.name

    @property
    def heading(self) -> str:
        """The name as a heading, with its unit."""
        return self.choice + (f", {self.unit}" if self.unit else "")

    @property
    def axis(self) -> str:
        """The name as an axis has it, with its unit and the direction that is better."""
        told = {"higher": "higher is better", "lower": "lower is better", "one": "1 is unbiased", None: ""}[self.better]
        return self.name + (f", {self.unit}" if self.unit else "") + (f" ({told})" if told else "")

    def value(self, found: Mapping[str, Any]) -> float | None:
        """A member's value, in the unit of tables; None where it is undefined."""
        value = finite(found.get(self.key))
        return None if value is None else value * self.scale

    def text(self, found: Mapping[str, Any]) -> str:
        """A member's value as tables write it, with its standard error where it has one; `-` where it is undefined."""
        value = self.value(found)
        if value is None:
            return "-"
        shown = f"{value:.{self.digits}f}"
        error = finite(found.get(self.error)) if self.error else None
        return shown if error is None else f"{shown} ±{error * self.scale:.{self.digits}f}"


_ROWS = (
    Metric(
        *("l0", "L0", "L0"),
        "Active latents (above 0) per token, on average.",
        *(TABLES, TABLES | MAP),
        unit="active latents per token",
        digits=1,
        error="l0_se",
    ),
    Metric(
        *("ce_recovered", "CE recovered", "CE recovered"),
        "(CE with zero ablation − CE with the SAE) / (CE with zero ablation − CE of the clean model). The SAE's "
        "reconstruction, or zeros, take the place of the site's activations. 1 is as good as the clean model, 0 as bad "
        "as zeros; it is never clipped. Zeros hurt some sites so much that every SAE comes close to 1: look at CE "
        "delta and KL too.",
        *(TABLES | AXIS, None),
        unit="fraction",
        error="ce_recovered_se",
        better="higher",
    ),
    Metric(
        *("ce_delta", "CE delta", "CE delta"),
        "CE with the SAE − CE of the clean model, in nats per token.",
        *(TABLES | AXIS, None),
        unit="nats per token",
        better="lower",
    ),
    Metric(
        *("kl", "KL", "KL(clean ‖ SAE)"),
        "KL divergence of the next-token distributions, clean model to model with the SAE, in nats per token.",
        *(TABLES | AXIS, None),
        unit="nats per token",
        better="lower",
    ),
    Metric(
        *("explained_variance", "expl. var.", "explained variance"),
        "1 − FVU. On synthetic activations, fidelity in the place of what a language model keeps.",
        *(NOWHERE, TABLES | AXIS),
        unit="fraction",
        better="higher",
    ),
    Metric(
        *("mmcs_truth", "MMCS truth", "MMCS, true to learned"),
        "Mean of maximum cosine similarities: each true latent looks for the nearest decoder row of a latent that is "
        "alive, which says how much was found.",
        *(None, TABLES | AXIS | MAP),
        digits=3,
        most=1,
        better="higher",
    ),
    Metric(
        *("mmcs_truth_frequent", "MMCS freq.", "MMCS, frequent true to learned"),
        "MMCS truth, over the true latents that were active on at least 10,000 of the member's training activations.",
        *(None, TABLES | AXIS | MAP),
        digits=3,
        most=1,
        better="higher",
    ),
    Metric(
        *("mmcs_latents", "MMCS latents", "MMCS, learned to true"),
        "Each alive latent looks for the nearest true one, which says whether what was found is true.",
        *(None, TABLES | AXIS | MAP),
        digits=3,
        most=1,
        better="higher",
    ),
    Metric(
        *("fvu", "FVU", "fraction of variance unexplained"),
        "Fraction of variance unexplained: squared error over the variance of the activations around their mean.",
        *(TABLES | AXIS, REPORT | AXIS | MAP),
        better="lower",
    ),
    Metric(
        *("cosine", "cosine", "cosine"),
        "Cosine of activation and reconstruction, averaged over tokens.",
        *(REPORT, REPORT),
        most=1,
        better="higher",
    ),
    Metric(
        *("gamma", "gamma", "γ, relative reconstruction bias"),
        "γ, the relative reconstruction bias: the mean squared norm of reconstructions over their mean inner product "
        "with the activations. Below 1 the SAE shrinks what it reconstructs.",
        *(TABLES | AXIS, TABLES | AXIS),
        digits=3,
        better="one",
    ),
    Metric(
        *("dead_fraction", "dead %", "dead latents"),
        "Latents that did not fire in the last dead_window_tokens of training.",
        *(TABLES | AXIS, TABLES | AXIS | MAP),
        unit="fraction",
        digits=1,
        scale=100,
        most=1,
        better="lower",
    ),
    Metric(
        *("alive", "alive %", "alive latents"),
        "Latents that fired at least once on the held-out tokens.",
        *(TABLES | AXIS, TABLES | AXIS),
        unit="fraction",
        digits=1,
        scale=100,
        most=1,
        better="higher",
    ),
    Metric(
        *("density_over_10pct", "dense %", "latents that fire on over 10% of tokens"),
        "Share of latents that fire on more than a tenth of the tokens.",
        *(REPORT, REPORT),
        unit="fraction",
        digits=2,
        scale=100,
        most=1,
    ),
    Metric(
        *("later_fvu", "later FVU", "fraction of variance unexplained at later sites"),
        "Where evaluation.later_sites asks for it: the fraction of variance unexplained between the residual stream "
        "that the SAE leads to and the clean one, averaged over later blocks.",
        *(TABLES, None),
        better="lower",
    ),
    *[
        Metric(
            *(f"ce_recovered_{which}", f"CE rec., {which}", f"CE recovered in the {which} model"),
            f"Of a crosscoder over two models, CE recovered where the {which} one's activations are replaced, against "
            "its own clean pass.",
            *(TABLES, None),
            unit="fraction",
            better="higher",
        )
        for which in MODELS
    ],
    *[
        Metric(
            *(f"fvu_{which}", f"FVU, {which}", f"fraction of variance unexplained in the {which} model"),
            f"Of a crosscoder over two models, FVU of the {which} one's activations.",
            *(REPORT, None),
            better="lower",
        )
        for which in MODELS
    ],
    Metric("density_over_1pct", "over 1%", "latents that fire on over 1% of tokens", "As a share of all latents."),
    Metric("l1", "L1", "L1", "Sum of activation x decoder norm per token.", toy=MAP, better="lower"),
    Metric("mse", "MSE", "squared error", "Squared error, summed over d and averaged over tokens.", better="lower"),
    Metric("ce_clean", "CE clean", "CE of the clean model", "Cross-entropy, in nats per token.", toy=None),
    Metric(
        "ce_sae", "CE SAE", "CE with the SAE", "In nats per token, reconstructions in place.", toy=None, better="lower"
    ),
    Metric("ce_zero", "CE zero", "CE with zero ablation", "In nats per token, zeros in place.", toy=None),
    Metric("ce_mean", "CE mean", "CE with mean ablation", "In nats per token, the mean in place.", toy=None),
    Metric(
        *("ce_recovered_mean", "CE recovered, mean", "CE recovered, mean ablation"),
        "CE recovered with mean ablation in the place of zeros.",
        toy=None,
        better="higher",
    ),
    Metric("kl_zero", "KL zero", "KL(clean ‖ zero ablation)", "In nats per token, zeros in place.", toy=None),
    Metric("l0_se", "L0 ±", "standard error of L0", "From a jackknife over the held-out sequences."),
    Metric(
        *("ce_recovered_se", "CE recovered ±", "standard error of CE recovered"),
        "From a paired jackknife over the held-out sequences.",
        toy=None,
    ),
    Metric("dead_window_tokens", "dead window", "dead window", "Tokens without firing that make a latent dead."),
    Metric("l0_untrimmed", "L0 untrimmed", "L0 before the last correction", "Of a member with sae.l0; null if not."),
    Metric("coefficient_final", "coefficient", "coefficient at the end", "Of the penalty, in the config's unit."),
    Metric(
        *("threshold_mode", "threshold", "how the inference threshold was found"),
        "quantile where sae.l0 was corrected at the end, else the architecture's own way.",
        is_number=False,
    ),
    Metric(
        *("outlier_fraction", "outliers", "outlier positions"),
        "Share of held-out positions left out, in training too, for a norm over data.max_norm_ratio times the median.",
        toy=None,
    ),
    Metric("tokens_trained", "tokens", "tokens trained on", "Counted tokens that training consumed.", digits=0),
    Metric("tokens_evaluated", "held-out", "held-out tokens", "Counted tokens that numbers are taken over.", digits=0),
    Metric("version", "version", "format version", "Of metrics.json; null before there was one.", digits=0),
)
METRICS = {metric.key: metric for metric in _ROWS}
"""By key: the closed list of metrics.json."""


def closed(found: Mapping[str, Any]) -> dict[str, Any]:
    """The found values among every key of the table, null where one is missing; keys of others are kept."""
    return {**dict.fromkeys(METRICS), **found}


def undefined_without_a_model() -> dict[str, float | None]:
    """The metrics that only a language model gives, as nulls."""
    return {key: None for key, metric in METRICS.items() if metric.toy is None}


def shown(where: Shown, *, toy: bool) -> list[Metric]:
    """The metrics that are shown in a place, of members on synthetic activations or on a language model."""
    return [metric for metric in METRICS.values() if where in ((metric.toy if toy else metric.models) or NOWHERE)]
