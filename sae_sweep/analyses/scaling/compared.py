"""How much of its compute a model keeps: two values of CE on a family's curve, with their errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import hypot, isfinite, sqrt

import torch
from torch import Tensor

from sae_sweep.analyses.scaling.curve import Curve
from sae_sweep.analyses.scaling.family import Row
from sae_sweep.analyses.session.result import Number


@dataclass(frozen=True)
class Ce:
    """A CE over held-out tokens."""

    mean: float
    left: Sequence[float]
    """Without one sequence at a time."""
    n: int
    """Tokens."""

    @classmethod
    def of(cls, sum_R: Tensor, count_R: Tensor) -> "Ce":
        """Of sums over each sequence, and of how many tokens."""
        used = count_R > 0
        sums, counts = sum_R[used].cpu(), count_R[used].cpu()
        left = (sums.sum() - sums) / (counts.sum() - counts).clamp(min=1)
        return cls((sums.sum() / counts.sum().clamp(min=1)).item(), left.tolist(), int(counts.sum()))


@dataclass(frozen=True)
class Compared:
    """A family and the clean model, at the positions of one site."""

    family: Sequence[tuple[float, Ce | Row]]
    """Compute and CE, measured here or of a table."""
    clean: Ce
    own: float | None
    """The clean model's compute; None is what the family needs for its CE."""
    extrapolate: bool

    @cached_property
    def curve(self) -> Curve:
        """CE over compute."""
        return Curve.of([(compute, _value(one)) for compute, one in self.family])

    @cached_property
    def _left(self) -> list[Curve]:
        """The same without one sequence at a time."""
        return [
            Curve.of([(compute, one.ce if isinstance(one, Row) else one.left[r]) for compute, one in self.family])
            for r in range(len(self.clean.left))
        ]

    @cached_property
    def _shifted(self) -> list[tuple[Curve, Curve]]:
        """The same with each number of a table that has an error more by it, and less by it."""
        found = []
        for i, (_, row) in enumerate(self.family):
            if isinstance(row, Row) and row.standard_error > 0:
                pair = (self._changed(i, row.standard_error), self._changed(i, -row.standard_error))
                found.append(pair)
        return found

    def _changed(self, place: int, more: float) -> Curve:
        return Curve.of([(compute, _value(one) + more * (i == place)) for i, (compute, one) in enumerate(self.family)])

    def compute_clean(self) -> Number:
        """What the family needs for the clean CE."""
        return self._number(lambda curve, _, clean: curve.compute(clean), self.clean, self.own)

    def recovered(self, ce: Ce, control: float | None) -> tuple[str, Number]:
        """The share of the clean model's compute that this CE takes; a bound where the family does not reach so far, by
        the name it has."""
        inside = self.curve.holds(ce.mean) and (self.own is not None or self.curve.holds(self.clean.mean))
        if inside or self.extrapolate:
            name = "recovered" if inside else "recovered_extrapolated"
            return name, self._number(self._share, ce, control)
        most = ce.mean > self.curve.ce[0]
        share = self._share(self.curve, self.curve.ce[0 if most else -1], self.clean.mean)
        return ("recovered_at_most" if most else "recovered_at_least"), Number(share, None, ce.n, control)

    def _share(self, curve: Curve, ce: float, clean: float) -> float:
        return curve.compute(ce) / (self.own or curve.compute(clean))

    def _number(self, made: Callable[[Curve, float, float], float], ce: Ce, control: float | None) -> Number:
        """What is made of a curve, a CE and the clean one; its error is that over sequences, and of a table's own. None
        where a family without a sequence, or within the errors of its table, does not fall: it says nothing then."""
        value = made(self.curve, ce.mean, self.clean.mean)
        curves = [*self._left, *(curve for pair in self._shifted for curve in pair)]
        if len(self._left) < 2 or any(len(curve.ce) < 2 for curve in curves):
            return Number(value, None, ce.n, control)
        found = [made(*three) for three in zip(self._left, ce.left, self.clean.left, strict=True)]
        left = torch.tensor(found, dtype=torch.float64)
        error = sqrt((len(found) - 1) / len(found) * (left - left.mean()).square().sum().item())
        of_table = [[made(curve, ce.mean, self.clean.mean) for curve in pair] for pair in self._shifted]
        both = hypot(error, *((more - less) / 2 for more, less in of_table))
        return Number(value, both if isfinite(both) else None, ce.n, control)


def _value(one: Ce | Row) -> float:
    return one.ce if isinstance(one, Row) else one.mean
