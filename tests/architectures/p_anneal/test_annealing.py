"""The exponent's way from 1 to p_end, and the scale that keeps the penalty's size on that way."""

from dataclasses import replace

import pytest
from torch import Tensor

from sae_sweep.architectures.maths import maths_of
from sae_sweep.architectures.p_anneal.facts import PAnnealConfig
from sae_sweep.architectures.p_anneal.maths import exponent
from sae_sweep.saes.base import Clock
from tests.saes import reference
from tests.saes.kinds import config
from tests.saes.problems import problem

ROUTES = pytest.mark.parametrize("dense", [False, True])


def exponents(p_end: float, after: int, total: int) -> list[float]:
    member, clock = config("p_anneal", p_end=p_end, anneal_after_steps=after), Clock(0, total, 0)
    return [exponent(member, step, clock) for step in range(total)]


@pytest.mark.parametrize("p_end", [0.2, 0.5, 1.0])
def test_ten_equal_updates(p_end: float) -> None:
    found = exponents(p_end, 30, 1000)
    assert sorted(set(found), reverse=True) == pytest.approx(sorted(set(reference.annealed_exponents(p_end)))[::-1])
    changes = [step for step in range(1, 1000) if found[step] != found[step - 1]]
    assert changes == ([] if p_end == 1 else [30 + 77 * update for update in range(1, 11)])
    assert found[799] == pytest.approx(1 - 0.9 * (1 - p_end))
    assert found[-1] == pytest.approx(p_end)


def test_it_begins_after_a_twentieth_of_a_short_run() -> None:
    found = exponents(0.2, 10_000, 200)
    assert found[10] == 1
    assert min(found[:25]) == 1
    assert found[160] == pytest.approx(0.2)


def run(total: int, dense: bool, steps: int | None = None) -> tuple[list[float], list[Tensor], list[float]]:
    """Scales before each step, codes and exponents of a run on inputs that shrink, of one member alone."""
    made = problem("p_anneal").alone(0)
    own = made.configs[0]
    assert isinstance(own, PAnnealConfig)
    maths, scales, codes, ps = maths_of(own), [], [], []
    buffers = {name: t.double()[None] for name, t in maths.buffers(own).items()}
    for number in range(steps or total):
        clock = Clock(number, total, 0)
        x_BD = made.x_BD * 0.98**number
        step = replace(made.step(dense), clocks=(clock,), buffers=buffers)
        scales.append(float(buffers["scale"][0]))
        codes.append(reference.bricken(made.parameters[0], x_BD).f_BF)
        ps.append(exponent(own, number, clock))
        losses = maths.losses(made.leaves(), x_BD, x_BD[:, None], step)
        assert losses.sparsity_M is not None
        assert losses.sparsity_M.item() == pytest.approx(scales[-1] * float(reference.lp(codes[-1], ps[-1])), rel=1e-10)
        buffers = {**buffers, **losses.buffers}
    return scales, codes, ps


@ROUTES
def test_the_scale_is_the_papers(dense: bool) -> None:
    """Updates sixteen steps apart: the last ten batches are all of one exponent."""
    scales, codes, ps = run(200, dense)
    assert len(set(ps)) == 11
    assert len(set(scales)) == 11
    assert scales == pytest.approx(reference.annealed(codes, ps), rel=1e-10)


@ROUTES
@pytest.mark.parametrize("total", [40, 15, 5])
def test_the_penalty_keeps_its_size_in_a_short_run_too(total: int, dense: bool) -> None:
    """Updates come every few steps, several at a time in the shortest; what is averaged is of one exponent."""
    scales, codes, ps = run(total, dense)
    expected, since = [1.0], 0
    for step in range(1, total):
        ratio = 1.0
        if ps[step] != ps[step - 1]:
            last = codes[max(since, step - 10) : step]
            ratio = float(
                sum(reference.lp(f, ps[step - 1]) for f in last) / sum(reference.lp(f, ps[step]) for f in last)
            )
            since = step
        expected.append(expected[-1] * ratio)
    assert scales == pytest.approx(expected, rel=1e-10)


def test_nothing_firing_leaves_the_scale() -> None:
    made = problem("p_anneal", "none").alone(0)
    step = replace(made.step(dense=False), clocks=(Clock(799, 1000, 0),))
    losses = maths_of(made.configs[0]).losses(made.leaves(), made.x_BD, made.x_BD[:, None], step)
    assert losses.buffers["scale"].tolist() == [1.3]
