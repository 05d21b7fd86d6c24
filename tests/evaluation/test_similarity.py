import pytest
import torch

from sae_sweep.evaluation import similarity
from sae_sweep.evaluation.similarity import mean_best_cosines


def test_by_hand() -> None:
    """A = {1, 1} and B = {1, -1}: each of A has its like, and only one of B has."""
    first, second = torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [-0.5]])
    assert mean_best_cosines(first, second) == (1.0, 0.0)
    assert mean_best_cosines(second, first) == (0.0, 1.0)


def test_against_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(13, 5, generator=generator), torch.randn(7, 5, generator=generator)
    pairs = torch.tensor([[float(torch.cosine_similarity(a, b, dim=0)) for b in second] for a in first])
    expected = (pairs.max(1).values.mean().item(), pairs.max(0).values.mean().item())
    assert mean_best_cosines(first, second) == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(similarity, "COSINE_ELEMENTS", 20)
    assert mean_best_cosines(first, second) == pytest.approx(expected, rel=1e-5)


def test_order_and_size_of_rows_do_not_matter() -> None:
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    assert mean_best_cosines(rows, 3 * rows.flip(0)) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("shape", [(0, 4), (3, 5)])
def test_nothing_to_compare(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        mean_best_cosines(torch.ones(2, 4), torch.ones(shape))
