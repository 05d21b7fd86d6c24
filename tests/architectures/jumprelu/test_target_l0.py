"""penalty=target_l0: which L0 is asked for at which step, what a miss costs, and how wide the kernel is then."""

from dataclasses import replace

import pytest
import torch

from sae_sweep.architectures.maths import maths_of
from sae_sweep.saes.base import Clock, Losses, Parameters, Step
from tests.saes.problems import TOKENS, VARIANCE, Problem, gradient, problem

KIND = "jumprelu_target_l0"


class TwiceTheError:
    """An objective in a unit of its own."""

    worth = 2.0

    def loss(self, error_BMD: torch.Tensor) -> torch.Tensor:
        """[M]"""
        return 2 * error_BMD.square().sum(2).mean(0)


def alone(l0: float, **keys: float | None) -> Problem:
    """The first member of three, which is to reach this L0."""
    made = problem(KIND).alone(0)
    made.configs[0] = replace(made.configs[0], l0=l0, **keys)
    return made


def losses_at(made: Problem, step: Step) -> tuple[Losses, Parameters]:
    p = made.leaves()
    return maths_of(made.configs[0]).losses(p, made.x_BD, made.x_BD[:, None], step), p


def first_step_l0(made: Problem) -> float:
    p = made.parameters[0]
    z = (made.x_BD - p["b_dec"]) @ p["W_enc"].T + p["b_enc"]
    return float((z > p["log_threshold"].exp()).sum()) / TOKENS


FALLS = [(64.0, 0.0, 64), (64.0, 0.5, 16), (64.0, 1.0, 4), (16.0, 0.25, 8), (16.0, 0.5, 4), (16.0, 0.75, 4)]
"""The first step's L0, the share of the warm-up that is done, and what is then wanted of one that is to reach 4."""


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("first", "done", "target"), [*FALLS, (1024.0, 0.5, 64), (1024.0, 1.0, 4)])
def test_the_target_falls_by_the_same_factor_each_step(first: float, done: float, target: float, dense: bool) -> None:
    """By 16 in a warm-up, until it is there; by more where 16 would not do."""
    made = alone(l0=4.0)
    before = {"first_l0": torch.tensor([first], dtype=made.x_BD.dtype)}
    step = replace(made.step(dense), clocks=(Clock(7, 1000, 0, done),), buffers=before)
    losses, _ = losses_at(made, step)
    assert losses.sparsity_M is not None
    assert losses.sparsity_M.item() == pytest.approx(VARIANCE * (first_step_l0(made) / target - 1) ** 2)
    assert losses.buffers["first_l0"].item() == first


def test_the_target_starts_at_the_first_steps_l0() -> None:
    """Whatever the thresholds started at: nothing pulls on them then."""
    made = alone(l0=1.0)
    step = replace(made.step(dense=False), clocks=(Clock(0, 1000, 0, 0.0),))
    losses, p = losses_at(made, step)
    assert losses.sparsity_M is not None
    assert losses.sparsity_M.item() == pytest.approx(0)
    assert losses.buffers["first_l0"].item() == pytest.approx(first_step_l0(made))
    assert gradient(losses.sparsity_M, p["log_threshold"]).abs().max() < 1e-12


def test_too_few_at_first_are_to_become_enough_at_once() -> None:
    made = alone(l0=20.0)
    l0 = first_step_l0(made)
    assert l0 < 20
    step = replace(made.step(dense=False), clocks=(Clock(0, 1000, 0, 0.0),))
    losses, _ = losses_at(made, step)
    assert losses.sparsity_M is not None
    assert losses.sparsity_M.item() == pytest.approx(VARIANCE * (l0 / 20 - 1) ** 2)


def test_a_miss_weighs_the_same_whatever_the_inputs_size() -> None:
    """Inputs 8 times as large, and all that is measured in them: both of the loss's terms are 64 times as large."""
    small, large = alone(l0=2.0, bandwidth=0.9), alone(l0=2.0, bandwidth=8 * 0.9)
    p = large.parameters[0]
    large.x_BD = 8 * large.x_BD
    large.parameters[0] = {
        **p,
        **{name: 8 * p[name] for name in ("b_enc", "b_dec")},
        "log_threshold": p["log_threshold"] + torch.tensor(8.0, dtype=p["b_enc"].dtype).log(),
    }
    step = small.step(dense=True)
    one, _ = losses_at(small, step)
    other, _ = losses_at(large, replace(large.step(dense=True), variance=64 * VARIANCE))
    assert one.sparsity_M is not None
    assert other.sparsity_M is not None
    assert one.sparsity_M.item() > 0
    torch.testing.assert_close(other.sparsity_M, 64 * one.sparsity_M)
    torch.testing.assert_close(other.reconstruction_M, 64 * one.reconstruction_M)


def test_a_miss_weighs_the_same_against_any_objective() -> None:
    made = alone(l0=2.0)
    plain, _ = losses_at(made, made.step(dense=True))
    twice, _ = losses_at(made, replace(made.step(dense=True), objective=TwiceTheError()))
    assert plain.sparsity_M is not None
    assert twice.sparsity_M is not None
    torch.testing.assert_close(twice.sparsity_M, 2 * plain.sparsity_M)
    torch.testing.assert_close(twice.reconstruction_M, 2 * plain.reconstruction_M)


def test_a_kernel_left_open_is_half_an_activation_wide() -> None:
    """Were the centred input carried by 2 equal activations, each would be sqrt(5.5 / 2)."""
    open_, given = alone(l0=2.0, bandwidth=None), alone(l0=2.0, bandwidth=0.5 * (VARIANCE / 2) ** 0.5)
    found, p = losses_at(open_, open_.step(dense=True))
    expected, q = losses_at(given, given.step(dense=True))
    assert found.sparsity_M is not None
    assert expected.sparsity_M is not None
    slope = gradient(found.sparsity_M, p["log_threshold"])
    assert slope.count_nonzero() > 0
    torch.testing.assert_close(slope, gradient(expected.sparsity_M, q["log_threshold"]))
