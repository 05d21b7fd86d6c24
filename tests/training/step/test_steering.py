"""Steering a coefficient to a target L0, on a made-up plant: L0 follows A coefficient^-0.8 with a lag."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.architectures.recipe import STEERING
from sae_sweep.plan.schedules import Schedule
from sae_sweep.training.step import steering
from sae_sweep.training.step.steering import Coefficients, first_guess
from tests.training.step.test_optimizer import PLAIN

CPU = torch.device("cpu")


def observe(control: Coefficients, *given: Any) -> None:
    for write in control.observe(*given):
        write()


VARIANCE = 50.0


@dataclass
class Plant:
    """L0 moves a share of the way to where the coefficient would have it, each step."""

    scale: float
    lag_steps: float
    l0: float

    def respond(self, coefficient: float) -> float:
        self.l0 += (self.scale * coefficient**-0.8 - self.l0) / self.lag_steps
        return self.l0


def schedule(total: int) -> Schedule:
    return replace(PLAIN, total_steps=total, hold_from=int(0.8 * total))


def steer(targets: list[float], scales: list[float], total: int) -> tuple[Tensor, Tensor]:
    """Coefficients [steps, M] in force and L0 [steps, M] seen."""
    control = Coefficients([None] * len(targets), targets, 1.0, VARIANCE, CPU)
    plants = [Plant(scale, 1 + total / 200, 2_000.0) for scale in scales]
    schedules = [schedule(total)] * len(targets)
    coefficients, seen = [], []
    for step in range(total):
        coefficients.append(control.value_M.clone())
        l0 = [plant.respond(c) for plant, c in zip(plants, control.value_M.tolist(), strict=True)]
        seen.append(torch.tensor(l0, dtype=torch.float64))
        observe(control, slice(0, len(targets)), schedules, [step] * len(targets), seen[-1])
    return torch.stack(coefficients), torch.stack(seen)


@pytest.mark.parametrize(
    ("target", "scale", "total"),
    [(4.0, 2.0, 2_000), (4.0, 2_000.0, 2_000), (32.0, 40.0, 5_000), (200.0, 2.0, 2_000), (200.0, 2_000.0, 2_000)],
)
def test_reaches_its_target_and_holds(target: float, scale: float, total: int) -> None:
    coefficients, l0 = steer([target], [scale], total)
    hold = int(0.8 * total)
    assert (l0[hold:, 0] / target - 1).abs().max() < 0.03
    assert (coefficients[hold:] == coefficients[hold]).all()
    assert coefficients[hold - 1] != coefficients[hold // 2]


def test_a_short_run_does_not_wind_up() -> None:
    """L0 far above its target for as long as it lasts moves the coefficient of 100 steps by less than a factor of 2."""
    control = Coefficients([None], [10.0], 1.0, VARIANCE, CPU)
    for step in range(100):
        observe(control, slice(0, 1), [schedule(100)], [step], torch.tensor([500.0], dtype=torch.float64))
    assert 1 < control.value_M.item() / first_guess(VARIANCE, 10.0, 1.0) < 2


def test_waits_while_lr_rises() -> None:
    """At the start and after a resampling L0 is far off whatever the coefficient: to follow it would be to wind up."""
    warming = replace(schedule(100), lr_warmup_steps=5, resample_steps=(40,))
    control = Coefficients([None], [10.0], 1.0, VARIANCE, CPU)
    moved = []
    for step in range(100):
        before = control.value_M.item()
        observe(control, slice(0, 1), [warming], [step], torch.tensor([50.0], dtype=torch.float64))
        if control.value_M.item() != before:
            moved.append(step)
    assert moved == [*range(5, 40), *range(45, 80)]


def test_several_at_once_are_each_alone() -> None:
    """Whatever the lengths of their runs."""
    targets, totals = [4.0, 32.0, 200.0], [300, 1_500, 600]
    seen = (torch.rand(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5) * 60
    together = Coefficients([None] * 3, targets, 1.0, VARIANCE, CPU)
    alone = [Coefficients([None], [target], 1.0, VARIANCE, CPU) for target in targets]
    schedules = [schedule(total) for total in totals]
    for step, l0_M in enumerate(seen):
        observe(together, slice(0, 3), schedules, [step] * 3, l0_M)
        for i, one in enumerate(alone):
            observe(one, slice(0, 1), schedules[i : i + 1], [step], l0_M[i : i + 1])
    assert torch.equal(together.value_M, torch.cat([one.value_M for one in alone]))
    assert (together.value_M != torch.tensor([first_guess(VARIANCE, t, 1.0) for t in targets])).all()


def test_a_fixed_coefficient_stays_beside_a_steered_one() -> None:
    control = Coefficients([0.25, None, None], [None, 16.0, None], 1.0, VARIANCE, CPU)
    start = control.value_M.clone()
    assert start.tolist() == [0.25, first_guess(VARIANCE, 16.0, 1.0), 0.0]
    for step in range(50):
        l0_M = torch.tensor([500.0, 500.0, 500.0], dtype=torch.float64)
        observe(control, slice(0, 3), [schedule(100)] * 3, [step] * 3, l0_M)
    assert control.value_M[[0, 2]].tolist() == [0.25, 0.0]
    assert control.value_M[1] > start[1]  # too many fire: press harder


@pytest.mark.parametrize(("l0", "sign"), [(64.0, 1), (16.0, 0), (4.0, -1), (0.0, -1)])
def test_direction(l0: float, sign: int) -> None:
    control = Coefficients([None], [16.0], 1.0, VARIANCE, CPU)
    start = control.value_M.item()
    for step in range(5):
        observe(control, slice(0, 1), [schedule(100)], [step], torch.tensor([l0], dtype=torch.float64))
    change = control.value_M.item() - start
    assert change == pytest.approx(0, abs=1e-15) if sign == 0 else change * sign > 0
    assert control.value_M.item() > 0


def test_members_that_finish_at_different_steps_hold_each_at_its_own() -> None:
    control = Coefficients([None, None], [16.0, 16.0], 1.0, VARIANCE, CPU)
    l0_M = torch.tensor([64.0, 64.0], dtype=torch.float64)
    observe(control, slice(0, 2), [schedule(100), schedule(200)], [80, 80], l0_M)
    guess = first_guess(VARIANCE, 16.0, 1.0)
    assert control.value_M[0].item() == guess
    assert control.value_M[1].item() > guess


@pytest.mark.parametrize(("degree", "expected"), [(1.0, (50 / 8) ** 0.5), (0.0, 50 / 8), (2.0, 1.0)])
def test_the_first_guess_has_the_penaltys_unit(degree: float, expected: float) -> None:
    """Squared error is of degree 2 in the activations; a coefficient makes up what its penalty lacks."""
    control = Coefficients([None], [8.0], degree, VARIANCE, CPU)
    assert control.value_M.item() == first_guess(VARIANCE, 8.0, degree) == pytest.approx(expected)


TUNED = replace(PLAIN, total_steps=100, hold_from=100, steering=STEERING["tuned"])


def moved(l0: float, step: int, schedule: Schedule) -> float:
    """By what log-coefficient one step moves at an L0, of a member of 512 latents that is to reach 8."""
    control = Coefficients([1.0], [8.0], 1.0, VARIANCE, CPU, 1.0, [512])
    observe(control, slice(0, 1), [schedule], [step], torch.tensor([l0], dtype=torch.float64))
    return control.value_M.log().item()


def test_an_l0_that_falls_by_itself_is_let_fall() -> None:
    """The bound falls from 256 to 8 over 25 steps: after 5 it is 128. Below the target there is no such leave."""
    assert [moved(l0, 5, TUNED) for l0 in (8.5, 60.0, 127.9)] == [0.0] * 3
    assert moved(160.0, 5, TUNED) == pytest.approx(0.08 * math.log(160 / 128), rel=1e-9)
    assert moved(7.0, 5, TUNED) == pytest.approx(0.08 * math.log(7 / 8), rel=1e-9)
    assert moved(8.5, 25, TUNED) == pytest.approx(0.08 * math.log(8.5 / 8), rel=1e-9)
    assert moved(60.0, 25, TUNED) == pytest.approx(0.08 * 0.35, rel=1e-9)  # the error's limit


def test_it_steers_to_the_end_and_eases_off_with_lr() -> None:
    falling = replace(TUNED, lr_decay_steps=40)
    gains = [moved(10.0, step, falling) / (0.08 * math.log(10 / 8)) for step in (50, 80, 93, 95, 99)]
    assert gains == pytest.approx([1, 1, 1, 6 * 5 / 40, 6 / 40], rel=1e-9)


def test_the_coefficient_goes_with_l0_as_it_moves() -> None:
    """From 10 to 12 over a step of a run of 100: the average is of one step."""
    control = Coefficients([1.0], [8.0], 1.0, VARIANCE, CPU, 1.0, [512])
    for step, l0 in ((50, 10.0), (51, 12.0)):
        observe(control, slice(0, 1), [TUNED], [step], torch.tensor([l0], dtype=torch.float64))
    expected = 0.08 * (math.log(10 / 8) + min(0.35, math.log(12 / 8))) + math.log(12 / 10)
    assert control.value_M.log().item() == pytest.approx(expected, rel=1e-9)


def late_answer(power: float, lag: float, late: int) -> tuple[list[float], list[float]]:
    """L0 and the share of steering that is left, by step: L0 follows coefficient^-power, some steps late and with a
    lag, which is more than damping is made for."""
    control, total = Coefficients([None], [4.0], 1.0, VARIANCE, CPU, 1.0, [1024]), 732
    balanced = replace(PLAIN, total_steps=total, hold_from=total, steering=STEERING["balanced"])
    l0, seen, left, given = 500.0, [], [], list[float]()
    for step in range(total):
        given.append(control.value_M.item())
        l0 *= (60 * given[max(0, step - late)] ** -power / l0) ** (1 / lag)
        observe(control, slice(0, 1), [balanced], [step], torch.tensor([l0], dtype=torch.float64))
        seen.append(l0)
        left.append(control.tensors()["steering_calm"].item())
    return seen, left


@pytest.mark.parametrize(("power", "lag", "late"), [(2.0, 3, 10), (2.0, 8, 10), (3.0, 8, 10)])
def test_what_would_swing_ever_wider_is_calmed(
    power: float, lag: float, late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, left = late_answer(power, lag, late)
    assert all(abs(l0 / 4 - 1) < 0.02 for l0 in seen[-150:])
    assert 0.1 < left[-1] < 0.6
    monkeypatch.setattr(steering, "SWING", math.inf)
    seen, left = late_answer(power, lag, late)
    assert min(seen[-150:]) < 2 < 8 < max(seen[-150:])
    assert left[-1] == 1


@pytest.mark.parametrize(("power", "late"), [(0.8, 10), (1.2, 10), (1.6, 5), (2.0, 0)])
def test_what_settles_is_steered_as_ever(power: float, late: int) -> None:
    """The way down from half of the latents is no swing, nor is one undershoot after it."""
    seen, left = late_answer(power, 8, late)
    assert all(abs(l0 / 4 - 1) < 0.01 for l0 in seen[-150:])
    assert set(left) == {1.0}


def test_swings_by_hand() -> None:
    """The way there counts for nothing; then one to each side, a narrow one, and one to each side again."""
    control = Coefficients([1.0], [8.0], 1.0, VARIANCE, CPU, 1.0, [512])
    calm = []
    for step, l0 in enumerate((100.0, 6.0, 11.0, 5.0, 7.5, 9.0, 6.0, 11.0, 7.0), start=30):
        observe(control, slice(0, 1), [TUNED], [step], torch.tensor([l0], dtype=torch.float64))
        calm.append(control.tensors()["steering_calm"].item())
    assert calm == pytest.approx([1, 1, 1, 0.7, 0.7, 0.49, 0.49, 0.49, 0.343], rel=1e-9)
    for step, l0 in enumerate((5.0, 12.0) * 10, start=40):
        observe(control, slice(0, 1), [TUNED], [step], torch.tensor([l0], dtype=torch.float64))
    assert control.tensors()["steering_calm"].item() == 0.1
