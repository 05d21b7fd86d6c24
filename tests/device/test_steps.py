"""Steps of every kind of member on a fake GPU: nothing in a plain one waits for it, and no sum is in random order."""

import pytest

from tests.device.kinds import KNOBS, STEERED, steps

WAITS = {"hierarchical_topk": 3, "temporal": 6}
"""Of a plain step, where there are any."""
UNORDERED = ("hierarchical_topk", "ortsae", "temporal")
"""Kinds whose gradients of values taken by index are added in no order."""
CASES = [*((kind, False) for kind in KNOBS), *((kind, True) for kind in STEERED)]


@pytest.mark.parametrize(("kind", "l0"), CASES)
def test_a_plain_step_waits_for_nothing(kind: str, l0: bool) -> None:
    first, second, third = steps(kind, l0=l0)
    assert second[0].total() == third[0].total() == WAITS.get(kind, 0)
    assert first[0], "the first is looked at"
    assert bool(first[1] + second[1] + third[1]) == (kind in UNORDERED), "every sum has an order"


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "matryoshka"])
def test_nor_where_latents_are_dead(kind: str) -> None:
    first, second, third = steps(kind, dead=7)
    assert not second[0]
    assert not third[0]
    assert not (first[1] + second[1] + third[1])


@pytest.mark.parametrize("kind", ["gated", "topk", "jumprelu_target_l0", "p_anneal", "matryoshka"])
def test_nor_of_several_members_together(kind: str) -> None:
    first, second, third = steps(kind, members=3, dead=5)
    assert not second[0]
    assert not third[0]
    assert not (first[1] + second[1] + third[1])


@pytest.mark.parametrize("keys", [{"sae_lookup": "learned"}, {"sae_lookup": "learned", "sae_lookup_subtract": True}])
def test_nor_with_a_table_of_tokens(keys: dict[str, object]) -> None:
    _, second, third = steps("standard", sae_centre=True, **keys)
    assert not second[0]
    assert not third[0]
