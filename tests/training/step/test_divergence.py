from math import inf, nan

import pytest

from sae_sweep.training.step.divergence import divergence

SOUND = {"reconstruction": 3.0, "sparsity": 1.0, "auxiliary": 0.0, "loss": 4.0, "l0": nan}


def test_a_bad_start_is_none() -> None:
    assert divergence(SOUND, 2.0, 7) is None
    assert divergence(SOUND | {"reconstruction": 1e6, "loss": 1e6}, 2.0, 7) is None
    assert divergence(SOUND, 0.0, 7) is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"reconstruction": nan, "loss": nan}, "it diverged: its reconstruction loss was nan at step 7"),
        ({"sparsity": inf, "loss": inf}, "it diverged: its sparsity loss was inf at step 7"),
        ({"auxiliary": nan, "loss": nan}, "it diverged: its auxiliary loss was nan at step 7"),
        ({"loss": inf}, "it diverged: its loss was inf at step 7"),
        (
            {"reconstruction": 4e12},
            "it diverged: its reconstruction loss was 2e+12 times the variance of its inputs at step 7",
        ),
    ],
)
def test_which_loss_is_said(values: dict[str, float], reason: str) -> None:
    assert divergence(SOUND | values, 2.0, 7) == reason
