"""The sparsity coefficients of a bank, and how `sae.l0` finds one.

A member with a penalty that is given `sae.l0` has no coefficient of its own: it is steered while training, by
integral control in logarithms, damped. L0 starts at half of the latents and falls by itself at first, so between
`sae.l0` and an upper bound that falls to it during the first part of the run (`architectures/recipe.py`) the
coefficient rests: pressing all the while L0 is still above its target is what would take it far below. It waits while
lr rises, at the start and after each resampling, and eases off with lr at the end. Where L0 answers more than that is
made for, it would swing about its target ever wider: then each swing makes steering gentler. `trim.py` corrects what is
left. Everything stays on the device: no step waits for a number.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import log, sqrt

import torch
from torch import Tensor

from sae_sweep.kernels.device import beside
from sae_sweep.plan.schedules import Schedule
from sae_sweep.saes.bank import Write

GAIN = 40.0
"""Log-coefficient per unit of log-L0 error, over a whole run: a time constant of about a fortieth of it. For one step
it is at most `Steering.step_gain`: L0 takes tens of steps to answer, and a short run would wind the coefficient up."""
ERROR_LIMIT = 0.35
"""Caps the error, so that one excursion of L0 does not undo what was found."""
SMOOTHING_SHARE = 0.01
"""L0 is averaged over about a hundredth of the run, at least 1 and at most 100 steps."""
L0_FLOOR = 1e-2
SWING = 0.2
"""In log L0: one that goes so far to one side of the target, and then to the other, is steering's own doing."""
CALMER = 0.7
"""What such a swing leaves of steering."""
CALMEST = 0.1
"""What all of them leave: in a run of very small batches, L0 passes its target so by chance."""

LATER = frozenset({"steering_calm", "swing", "last_swing"})
"""Tensors that checkpoints of before have not: who goes on from one has them as at the beginning."""


def first_guess(variance: float, l0: float, degree: float) -> float:
    """Coefficient to start from, for a penalty of this degree in the activations.

    Were the centred input carried by `l0` equal activations, each would have size sqrt(variance / l0); an activation
    is worth its square, and the penalty should be of that order.
    """
    return sqrt(variance / l0) ** (2 - degree)


class Coefficients:
    """Coefficients [M] in the unit of the optimised loss, fixed or on their way to a target L0."""

    def __init__(
        self,
        fixed: Sequence[float | None],
        targets: Sequence[float | None],
        degree: float,
        variance: float,
        device: torch.device,
        worth: float = 1.0,
        widths: Sequence[int] = (),
        first_share: float = 1.0,
    ):
        """A member has a target to steer to, or a fixed coefficient, or (`None` twice) no use for one; with both, it is
        steered from there.

        `degree` is that of the penalty in the activations, 1 for L1 and 0 for L0; `worth` what a squared error of 1 is
        in the unit of the loss. Half of the latents, `widths`, fire at first;
        steering starts from `first_share` of the guess.
        """
        start = [
            worth * first_share * first_guess(variance, target, degree)
            if value is None and target is not None
            else float(value or 0.0)
            for value, target in zip(fixed, targets, strict=True)
        ]
        self._steered = [target is not None for target in targets]
        self._target_M = torch.tensor([target or 1.0 for target in targets], dtype=torch.float64, device=device)
        above = [log(max(1.0, width / (2 * (target or width)))) for width, target in zip(widths, targets, strict=False)]
        first = above or [0.0] * len(targets)
        self._first_M = torch.tensor(first, dtype=torch.float64, device=device)
        self.value_M = torch.tensor(start, dtype=torch.float64, device=device)
        self.smoothed_l0_M = torch.full_like(self.value_M, torch.nan)
        self._calm_M = torch.ones_like(self.value_M)
        """Share of steering that is left."""
        self._swing_M = torch.zeros_like(self.value_M)
        """How far log L0 has been from its target since it last passed it."""
        self._last_swing_M = torch.full_like(self.value_M, torch.nan)
        """And between that time and the one before; nan until it was there, 0 for the way there."""

    def observe(
        self,
        members: slice,
        schedules: Sequence[Schedule],
        steps: Sequence[int],
        l0_M: Tensor,
        lost: Tensor | None = None,
    ) -> list[Write]:
        """What takes in the L0 of a step of some members; it moves no coefficient while lr rises, or from `hold_from`
        on, and does nothing where the step is `lost`."""
        steered = self._steered[members]
        if not any(steered):
            return []
        gain_M = beside(
            l0_M,
            [
                on * min(s.steering.step_gain, GAIN / s.total_steps) * s.steers_at(step)
                for on, s, step in zip(steered, schedules, steps, strict=True)
            ],
        )
        fall_M = beside(l0_M, [s.fall_at(step) for s, step in zip(schedules, steps, strict=True)])
        weight_M = beside(l0_M, [1 / min(100.0, max(1.0, SMOOTHING_SHARE * s.total_steps)) for s in schedules])
        smoothed_M = self.smoothed_l0_M[members]
        before_M = torch.where(smoothed_M.isnan(), l0_M, smoothed_M).clamp(min=L0_FLOOR)
        now_M = torch.where(smoothed_M.isnan(), l0_M, smoothed_M + weight_M * (l0_M - smoothed_M))
        now_M = now_M if lost is None else torch.where(lost, smoothed_M, now_M)
        above_M = (now_M.clamp(min=L0_FLOOR) / self._target_M[members]).log()
        passed_M = (1 - fall_M) * self._first_M[members]  # what L0 may be above its target by
        error_M = above_M.clamp(max=0.0) + (above_M - passed_M).clamp(min=0.0)
        error_M = error_M.clamp(-ERROR_LIMIT, ERROR_LIMIT)
        damping_M = beside(l0_M, [s.steering.damping for s in schedules])
        moved_M = (now_M.clamp(min=L0_FLOOR) / before_M).log() * ((gain_M > 0) & (error_M != 0))
        factor_M = (self._calm_M[members] * (gain_M * error_M + damping_M * moved_M)).exp()
        factor_M = factor_M if lost is None else torch.where(lost, 1.0, factor_M)
        own = [partial(smoothed_M.copy_, now_M), partial(self.value_M[members].mul_, factor_M)]
        return [*own, *self._calmed(members, above_M, (before_M / self._target_M[members]).log(), gain_M > 0)]

    def _calmed(self, members: slice, above_M: Tensor, before_M: Tensor, steers_M: Tensor) -> list[Write]:
        """What takes in how far log L0 is from its target, and was a step before, of members that are steered now."""
        calm_M, swing_M, last_M = (each[members] for each in (self._calm_M, self._swing_M, self._last_swing_M))
        passed_M = steers_M & (above_M * before_M < 0)
        wide_M = passed_M & (torch.minimum(swing_M, last_M) > SWING)  # false where there was none before
        came_M = torch.where(last_M.isnan(), 0.0, swing_M)
        farthest_M = torch.fmax(torch.where(passed_M, 0.0, swing_M), above_M.abs())  # fmax: nan where a step is lost
        return [
            partial(calm_M.copy_, torch.where(wide_M, (CALMER * calm_M).clamp(min=CALMEST), calm_M)),
            partial(last_M.copy_, torch.where(passed_M, came_M, last_M)),
            partial(swing_M.copy_, torch.where(steers_M, farthest_M, swing_M)),
        ]

    def tensors(self) -> dict[str, Tensor]:
        """All that steps change, by name."""
        steering = {"steering_calm": self._calm_M, "swing": self._swing_M, "last_swing": self._last_swing_M}
        return {"coefficient": self.value_M, "smoothed_l0": self.smoothed_l0_M, **steering}

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Let other tensors take their place, under the names of `tensors`."""
        self.value_M, self.smoothed_l0_M = tensors["coefficient"], tensors["smoothed_l0"]
        self._calm_M, self._swing_M = tensors["steering_calm"], tensors["swing"]
        self._last_swing_M = tensors["last_swing"]

    def state(self, member: int) -> dict[str, Tensor]:
        """One member's coefficient and what steers it, as views."""
        return {name: tensor_M[member] for name, tensor_M in self.tensors().items()}
