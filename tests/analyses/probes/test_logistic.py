"""Probes against their own definition."""

import pytest
import torch

from sae_sweep.analyses.probes.logistic import auc, fitted, probe_auc, standardised


def test_area_under_the_curve_by_hand() -> None:
    """Of the four pairs of a 1 and a 0: 3 > 1, 3 > 2, 2 = 2 (a half) and 2 > 1."""
    assert auc(torch.tensor([3.0, 2.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("width", [3, 80])
def test_weights_are_where_the_loss_is_flat(width: int) -> None:
    """By Newton's method and by another; autograd says how steep it is."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, width, generator=generator).double()
    y = (torch.rand(60, generator=generator) < 0.4).double()
    w, intercept = fitted(x, y)
    leaf = torch.cat([w, intercept[None]]).requires_grad_()
    logits = x @ leaf[:-1] + leaf[-1]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")
    (loss + leaf[:-1].square().sum() / 2).backward()
    assert leaf.grad.abs().max() < 1e-4


def test_the_best_features_are_taken() -> None:
    """The second tells the label, the first is noise, the third never varies."""
    generator = torch.Generator().manual_seed(1)
    y = torch.tensor([0.0, 1.0]).repeat_interleave(50).double()
    noise = torch.randn(2, 100, generator=generator).double()
    x = torch.stack([noise[0], y + 0.1 * noise[1], torch.ones(100).double()], dim=1)
    assert probe_auc(x, y, x, y, 1) == 1
    assert probe_auc(x[:, [0, 2]], y, x[:, [0, 2]], y, 1) < 0.7
    assert probe_auc(x, y, x, y, None) == 1
    assert standardised(x, x)[0][:, 2].tolist() == [0] * 100
