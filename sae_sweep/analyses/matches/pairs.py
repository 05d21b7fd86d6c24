"""Which members are compared."""

from collections.abc import Callable, Sequence
from itertools import combinations

from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.errors import ConfigError

Pair = tuple[FinishedSae, FinishedSae]

SIZE = ("sae.width", "sae.expansion")
PLACE = ("site.layer", "site.hook", "site.kind")
_ALIKE: dict[str, Callable[[FinishedSae, FinishedSae], bool]] = {
    "seed": lambda one, other: one.alike(other, "seed"),
    "site": lambda one, other: one.sites == other.sites,
    "width": lambda one, other: one.alike(other, *SIZE),
    "layer": lambda one, other: one.alike(other, *PLACE),
}
_HINTS = {
    "seed": "train more of them (seed=0,1), or give analysis.matching.pairs=site",
    "site": "it has one",
    "width": "train more of them (sae.width=1024,2048)",
    "layer": "train more of them (site.layer=1,2)",
}


def pairs_of(saes: Sequence[FinishedSae], which: str, analysis: str = "matching", widths: bool = True) -> list[Pair]:
    """Every two members that are to be compared, once each; for `width` each with the next larger, which is the second.
    Raises ConfigError where there are none, and with `widths` where their
    sites have activations of different widths."""
    key = f"analysis.{analysis}.pairs={which}" if analysis == "matching" else f"analysis {analysis}"
    if which not in _ALIKE:
        raise ConfigError(f"{key} is not one of {', '.join(_ALIKE)}")
    pairs = [pair for pair in combinations(saes, 2) if _ALIKE[which](*pair)]
    if which == "width":
        pairs = [pair for pair in map(_smaller_first, pairs) if _is_next(*pair, saes)]
    if not pairs:
        raise ConfigError(f"{key}: no two finished members differ so; {_HINTS[which]}")
    for one, other in pairs if widths else []:
        if (one.sae.d, one.sae.d_out) != (other.sae.d, other.sae.d_out):
            raise ConfigError(
                f"{key}: {one.label} is for {one.sae.d_out} numbers and {other.label} for {other.sae.d_out}, so no"
                " direction of the one is one of the other; --member those of one width, or ask by activation"
            )
    return pairs


def _smaller_first(pair: Pair) -> Pair:
    one, other = sorted(pair, key=lambda each: each.sae.width)
    return one, other


def _is_next(one: FinishedSae, other: FinishedSae, saes: Sequence[FinishedSae]) -> bool:
    """Whether no member like them has a width between theirs."""
    widths = {each.sae.width for each in saes if each.alike(one, *SIZE)}
    return one.sae.width < other.sae.width and not any(one.sae.width < w < other.sae.width for w in widths)
