"""Latents that other members find again, by hand."""

import pytest
import torch

from sae_sweep.analyses.matching import matched


def test_by_hand() -> None:
    """Cosines of (1, 0), (0, 2) and (3, 4) with (0, 5): 0, 1 and 4/5. Their mean is 3/5, their variance 28/100, so the
    error is sqrt(0.28 / 3). Back, the best of the one row is 1, and it has no error."""
    rows, others = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 5.0]])
    found = matched(rows, others)
    assert (found.value, found.n) == (pytest.approx(0.6), 3)
    assert found.standard_error == pytest.approx((0.28 / 3) ** 0.5)
    back = matched(others, rows)
    assert (back.value, back.standard_error, back.n) == (pytest.approx(1.0), None, 1)


def test_random_directions_are_no_better_than_the_control() -> None:
    """64 directions in 32 dimensions against 64 others: both are a maximum of as many random cosines."""
    rows, others = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(1)).double()
    found = matched(rows, others)
    assert found.control is not None
    assert found.standard_error is not None
    assert abs(found.value - found.control) < 4 * found.standard_error
    assert 0.3 < found.control < 0.5
