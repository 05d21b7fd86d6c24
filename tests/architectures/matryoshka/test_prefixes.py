"""Which latents a nested prefix has: fixed as the paper divides them, or drawn every step."""

from collections import Counter

import pytest

from sae_sweep.saes.base import Clock
from sae_sweep.saes.nested import prefix_sizes
from tests.saes import reference_topk
from tests.saes.kinds import config


def prefixes(width: int, step: int = 0, seed: int = 0, **keys: object) -> list[int]:
    return prefix_sizes(config("matryoshka", **keys), width, Clock(step, 1000, seed))


def test_the_papers_prefixes() -> None:
    """1/32, 1/16, 1/8, 1/4 and the rest of 65,536, added up."""
    assert prefixes(65_536, groups=5) == [2048, 6144, 14_336, 30_720, 65_536]


@pytest.mark.parametrize("groups", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [32, 96, 4096])
def test_where_the_width_divides(width: int, groups: int) -> None:
    assert prefixes(width, groups=groups) == reference_topk.fixed_prefixes(width, groups)
    assert prefixes(width, step=7, seed=3, groups=groups) == prefixes(width, groups=groups)


@pytest.mark.parametrize("width", [33, 40, 47, 1_000, 16_383])
def test_where_it_does_not(width: int) -> None:
    """As many groups, each within a latent of twice the one before, and the last the whole width."""
    found = prefixes(width, groups=5)
    assert len(found) == 5
    assert found[-1] == width
    sizes = [b - a for a, b in zip([0, *found], found, strict=False)]
    assert min(sizes) >= 1
    for power, size in zip((5, 4, 3, 2), sizes, strict=False):
        assert abs(size - width / 2**power) <= 1


def test_drawn_ones_are_pareto_distributed() -> None:
    """P(size > m) of a Pareto(1/2) cut to [1, F] is (m^-1/2 - F^-1/2) / (1 - F^-1/2)."""
    width, draws = 400, 1500
    inner = Counter(
        size for step in range(draws) for size in prefixes(width, step, groups=2, prefixes="sampled") if size < width
    )
    assert inner.total() == draws
    assert min(inner) >= 1
    for m in (1, 4, 20, 100):
        above = sum(count for size, count in inner.items() if size > m)
        # A whole number above m was drawn at m + 1 or more.
        share = ((m + 1) ** -0.5 - width**-0.5) / (1 - width**-0.5)
        assert abs(above - draws * share) < 4 * (draws * share * (1 - share)) ** 0.5


@pytest.mark.parametrize("seed", [0, 5])
def test_drawn_ones_are_nested_and_end_in_the_width(seed: int) -> None:
    """By member's seed and step, so that a resumed run draws what an uninterrupted one does."""
    drawn = [prefixes(500, step, seed, groups=10, prefixes="sampled") for step in range(30)]
    for found in drawn:
        assert found == sorted(set(found))
        assert found[-1] == 500
        assert found[0] >= 1
        assert len(found) <= 10
    assert len({tuple(found) for found in drawn}) == 30
    assert drawn[3] == prefixes(500, 3, seed, groups=10, prefixes="sampled")
    assert drawn[3] != prefixes(500, 3, seed + 1, groups=10, prefixes="sampled")
