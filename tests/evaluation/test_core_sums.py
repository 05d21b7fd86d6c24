"""SAEBench's own definitions, computed by hand on two batches of two tokens."""

import pytest
import torch

from sae_sweep.evaluation.core_sums import CoreSums

BATCHES = (
    # norms 5, 0 and 3, 0; errors^2 16, 0; the mean is (1.5, 2), 6.25 from both squared
    ([[3.0, 4.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 0.0]]),
    # norms 2, 0 and 1, 0; errors^2 1, 0; the mean is (1, 0), 1 from both squared
    ([[2.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]),
)


def test_by_hand() -> None:
    sums = CoreSums(torch.device("cpu"))
    for x, x_hat in BATCHES:
        sums.add(torch.tensor(x), torch.tensor(x_hat))
    square, error2 = (12.5 + 2) / 2, (8 + 0.5) / 2
    assert sums.values() == pytest.approx(
        {
            "l2_norm_in": (5 + 2) / 4,
            "l2_norm_out": (3 + 1) / 4,
            "l2_ratio": (0.6 + 0.5) / 4,  # a token of 0 is divided by 1
            "relative_reconstruction_bias": (4.5 / 4.5 + 0.5 / 1) / 2,
            "mse": (16 / 2 + 1 / 2) / 4,
            "explained_variance": 1 - error2 / (square - (square / 2) ** 2),
            "explained_variance_legacy": ((1 - 16 / 6.25) + 1 + 0 + 1) / 4,
        }
    )


def test_nothing_was_added() -> None:
    sums = CoreSums(torch.device("cpu"))
    sums.add(torch.zeros(0, 2), torch.zeros(0, 2))
    assert sums.values() == {}
