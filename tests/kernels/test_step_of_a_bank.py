"""A step of every kind of bank as a GPU takes it, by Triton's interpreter, against the dense route."""

from dataclasses import replace

import pytest
import torch

from tests.kernels.conftest import Interpret
from tests.kernels.interpreted import in_16_bits
from tests.saes.kinds import KINDS, TOPK_KINDS
from tests.saes.problems import TOKENS, WIDTHS, problem

STEP = "tests.kernels.interpreted:bank_step"
ROOM = TOKENS * sum(WIDTHS)


SLOW = [pytest.param(kind, "half", marks=pytest.mark.evidence) for kind in TOPK_KINDS]
"""Selecting is slow where it is interpreted; `test_triton.py` has a step of topk."""


@pytest.mark.parametrize(("kind", "density"), [*((kind, "half") for kind in KINDS if kind not in TOPK_KINDS), *SLOW])
def test_gradients(interpret: Interpret, kind: str, density: str) -> None:
    dead = kind in TOPK_KINDS and density == "half"
    found, fired_F, support_F, lost = interpret(STEP, kind, density, ROOM + 7, dead)
    losses, expected = problem(kind, density, dead=dead).gradients(dense=True)
    assert not lost
    assert torch.equal(fired_F, losses.fired_F)
    assert support_F.sum() >= losses.support_F.sum()  # of those that fire all, but others at 0 may be listed
    for own, theirs in zip(found, expected, strict=True):
        assert own.keys() == theirs.keys()
        for name, gradient in theirs.items():
            torch.testing.assert_close(
                own[name], gradient, rtol=1e-10, atol=1e-11, msg=lambda said, of=name: f"{of}: {said}"
            )


@pytest.mark.parametrize(
    "kind", ["bricken", *(pytest.param(kind, marks=pytest.mark.evidence) for kind in ("gated", "topk"))]
)
def test_gradients_where_16_bits_choose(interpret: Interpret, kind: str) -> None:
    """Codes and gradients in float32, against float64's."""
    found, fired_F, _, lost = interpret(STEP, kind, "half", ROOM + 7, False, True)
    made = in_16_bits(problem(kind, "half", dead=False))
    double = [{name: tensor.double() for name, tensor in own.items()} for own in made.parameters]
    losses, expected = replace(made, x_BD=made.x_BD.double(), parameters=double).gradients(dense=True)
    assert not lost
    assert torch.equal(fired_F, losses.fired_F)
    for own, theirs in zip(found, expected, strict=True):
        assert own.keys() == theirs.keys()
        for name, gradient in theirs.items():
            torch.testing.assert_close(
                own[name].double(), gradient, rtol=1e-4, atol=1e-5, msg=lambda said, of=name: f"{of}: {said}"
            )


@pytest.mark.evidence
def test_gradients_of_rows_in_16_bits(interpret: Interpret) -> None:
    """The same codes; gradients that are a rounding away."""
    found, fired_F, *_ = interpret(STEP, "bricken", "half", ROOM + 7, False, True, torch.bfloat16)
    made = in_16_bits(problem("bricken", "half", dead=False))
    double = [{name: tensor.double() for name, tensor in own.items()} for own in made.parameters]
    losses, expected = replace(made, x_BD=made.x_BD.double(), parameters=double).gradients(dense=True)
    assert torch.equal(fired_F, losses.fired_F)
    for own, theirs in zip(found, expected, strict=True):
        for name, gradient in theirs.items():
            torch.testing.assert_close(own[name].double(), gradient, rtol=0.05, atol=0.02 * float(gradient.abs().max()))
    assert any((own["W_dec"] - theirs["W_dec"]).abs().max() > 1e-4 for own, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", ["gated", pytest.param("batchtopk", marks=pytest.mark.evidence)])
def test_too_small_a_room_is_told(interpret: Interpret, kind: str) -> None:
    _, _, support_F, lost = interpret(STEP, kind, "half", 50, False)
    assert lost
    assert support_F.sum() == 50
