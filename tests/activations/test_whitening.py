"""What whitens a block's activations, against what numpy says of the same numbers."""

import numpy as np
import pytest
import torch

from sae_sweep.activations.block import Block
from sae_sweep.activations.scaling import SiteStatistics, site_statistics
from sae_sweep.activations.whitening import SHRINKAGE, whitened, whitening
from sae_sweep.errors import ConfigError

ROWS, D = 500, 6


def statistics(x_BD: torch.Tensor, centred: bool = False) -> SiteStatistics:
    block = Block(0, 0, {"here": x_BD}, {"here": torch.zeros(len(x_BD), dtype=torch.int64)})
    return site_statistics(block, centred=centred, covariance=True)["here"]


@pytest.mark.parametrize("centred", [False, True])
def test_whitened_numbers(centred: bool) -> None:
    """W W = S'^-1 with S' the shrunk covariance, W symmetric; and what is said of W x is what W x is."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, D)) @ rng.normal(size=(D, D)) * 3 + np.arange(D)
    found = statistics(torch.from_numpy(x), centred)
    by = whitening(found)
    covariance = np.cov(x.T, bias=True)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / D * np.eye(D)
    matrix = by.matrix_DD.numpy()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    np.testing.assert_allclose(matrix @ matrix, np.linalg.inv(shrunk), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(matrix @ by.inverse_DD.numpy(), np.eye(D), atol=1e-12)
    assert (np.linalg.eigvalsh(matrix) > 0).all()
    seen = (x - x.mean(0) * centred) @ matrix
    told = whitened(found, by)
    assert told.mean_square_norm == pytest.approx((seen**2).sum(1).mean())
    assert told.mean_norm == pytest.approx(np.linalg.norm(seen, axis=1).mean())
    assert told.variance == pytest.approx(seen.var(0).sum())
    np.testing.assert_allclose(told.mean, seen.mean(0), atol=1e-10)
    np.testing.assert_allclose(told.sample, seen, atol=1e-10)


def test_a_direction_without_variance_is_not_blown_up() -> None:
    x_BD = torch.randn(ROWS, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_BD[:, 0] = 7.0
    by = whitening(statistics(x_BD))
    assert by.matrix_DD.isfinite().all()
    assert torch.linalg.eigvalsh(by.matrix_DD)[-1] == pytest.approx((SHRINKAGE * 5 / 6) ** -0.5, rel=0.05)


def test_activations_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sae\.input_scale=whiten cannot be computed"):
        whitening(statistics(torch.ones(ROWS, D)))
