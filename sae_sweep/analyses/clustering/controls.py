"""The members that say what a number is worth, at the L0 of another."""

from collections.abc import Mapping, Sequence
from math import log

from sae_sweep.analyses.session.finished import FinishedSae

Weights = Mapping[str, float]
"""How much of each member, by label; together 1."""


def controls_of(one: FinishedSae, saes: Sequence[FinishedSae], within: float) -> dict[str, Weights]:
    """Of each kind of control at a member's site what stands at its L0: between two of that kind, or one whose L0 is
    `within` a share of its own. Of one kind those of its width are taken where there are some, and of its seed. For a
    control there are none."""
    kinds: dict[str, list[FinishedSae]] = {}
    for other in () if one.member.config.sae.control else saes:
        config = other.member.config.sae
        if config.control and other.sites == one.sites and other is not one:
            kinds.setdefault(config.method(), []).append(other)
    found = {}
    for kind, others in kinds.items():
        others = [each for each in others if each.sae.width == one.sae.width] or others
        others = [each for each in others if each.entries.get("seed") == one.entries.get("seed")] or others
        weights = matched([(l0_of(each), each.label) for each in others], l0_of(one), within)
        if weights is not None:
            found[kind] = weights
    return found


def l0_of(one: FinishedSae) -> float:
    """Latents per held-out token."""
    return one.frequency_F.sum().item()


def matched(points: Sequence[tuple[float, str]], l0: float, within: float) -> Weights | None:
    """The weights of what a line through points, (L0, label), has at an L0, in log L0; the nearest's own outside of
    them, where that is near enough; None else."""
    known = sorted(point for point in points if point[0] > 0 < l0)
    below = max((point for point in known if point[0] <= l0), default=None)
    above = min((point for point in known if point[0] >= l0), default=None)
    if below is not None and above is not None and above[0] > below[0]:
        share = (log(l0) - log(below[0])) / (log(above[0]) - log(below[0]))
        return {below[1]: 1 - share, above[1]: share}
    nearest = min(known, key=lambda point: abs(log(point[0] / l0)), default=None)
    if nearest is None or abs(nearest[0] - l0) > within * l0:
        return None
    return {nearest[1]: 1.0}
