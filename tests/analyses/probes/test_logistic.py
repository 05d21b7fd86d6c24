"""Probes against their own definition."""

import numpy as np
import pytest
import torch

from sae_sweep.analyses.probes.logistic import auc, fitted, probe_auc, standardised


def test_area_under_the_curve_by_hand() -> None:
    """Of the four pairs of a 1 and a 0: 3 > 1, 3 > 2, 2 = 2 (a half) and 2 > 1."""
    assert auc(np.array([3.0, 2.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(3.5 / 4)


def test_weights_are_where_the_loss_is_flat() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(60, 3)), (generator.random(60) < 0.4).astype(float)
    w, intercept = fitted(x, y)
    leaf = torch.tensor([*w, intercept], requires_grad=True)
    logits = torch.tensor(x) @ leaf[:3] + leaf[3]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(y), reduction="sum")
    (loss + leaf[:3].square().sum() / 2).backward()
    assert leaf.grad.abs().max() < 1e-2


def test_the_best_features_are_taken() -> None:
    """The second tells the label, the first is noise, the third never varies."""
    generator = np.random.default_rng(1)
    y = np.repeat([0.0, 1.0], 50)
    x = np.stack([generator.normal(size=100), y + 0.1 * generator.normal(size=100), np.ones(100)], 1)
    assert probe_auc(x, y, x, y, 1) == 1
    assert probe_auc(x[:, [0, 2]], y, x[:, [0, 2]], y, 1) < 0.7
    assert probe_auc(x, y, x, y, None) == 1
    assert standardised(x, x)[0][:, 2].tolist() == [0] * 100
