"""Reconstruction metrics against values worked out by hand from the definitions."""

import pytest
import torch
from torch import Tensor

from sae_sweep.evaluation.reconstruction import Reconstruction

CPU = torch.device("cpu")


def metrics(x_BD: Tensor, x_hat_BD: Tensor, parts: int = 1) -> dict[str, float | None]:
    reconstruction = Reconstruction(x_BD.shape[1], CPU)
    for x, x_hat in zip(x_BD.chunk(parts), x_hat_BD.chunk(parts), strict=True):
        reconstruction.update(x, x_hat)
    return reconstruction.metrics()


def rows(*values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_pair(tokens: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(tokens, 5, generator=generator, dtype=torch.float64)
    return x, x + torch.randn(tokens, 5, generator=generator, dtype=torch.float64)


def test_by_hand() -> None:
    """x = (4, 0), (0, 2); x_hat = (3, 0), (0, 0).

    Squared errors 1 and 4: mse 5/2. Mean (2, 1), squared distances to it 4 + 1 and 4 + 1: fvu 5/10. Cosines 1 and 0
    (a zero reconstruction points nowhere): 1/2. E||x_hat||^2 = 9/2, E x.x_hat = 12/2: gamma 9/12.
    """
    found = metrics(rows((4, 0), (0, 2)), rows((3, 0), (0, 0)))
    expected = {"mse": 2.5, "fvu": 0.5, "explained_variance": 0.5, "cosine": 0.5, "gamma": 0.75}
    assert found == pytest.approx(expected, rel=1e-14)


def test_ratios_are_of_sums_not_means_of_ratios() -> None:
    """One long and one short token; the short one is reconstructed four times too long.

    x = (10, 0), (0, 1); x_hat = (10, 0), (0, 4). gamma = (100 + 16) / (100 + 4); the tokens' own are 1 and 4.
    fvu: error 9; mean (5, 1/2), squared distances 25 + 1/4 twice = 50.5. A per-dimension fvu would be (0 + 18) / 2.
    """
    found = metrics(rows((10, 0), (0, 1)), rows((10, 0), (0, 4)))
    assert found["gamma"] == pytest.approx(116 / 104, rel=1e-14)
    assert found["fvu"] == pytest.approx(9 / 50.5, rel=1e-14)


def test_gamma_of_a_shrunk_reconstruction() -> None:
    """x_hat = x / 2 must be multiplied by 2: gamma is 1/2, with and without a mean."""
    x_BD, _ = random_pair()
    for shifted_BD in (x_BD, x_BD - x_BD.mean(0)):
        assert metrics(shifted_BD, shifted_BD / 2)["gamma"] == pytest.approx(0.5, rel=1e-14)


def test_gamma_is_the_best_rescaling() -> None:
    """gamma minimises E||x_hat / g - x||^2, so no g near it does better."""
    x_BD, x_hat_BD = random_pair()
    gamma = metrics(x_BD, x_hat_BD)["gamma"]
    assert gamma is not None

    def error(g: float) -> float:
        return (x_hat_BD / g - x_BD).square().sum().item()

    assert error(gamma) < min(error(gamma * 1.001), error(gamma / 1.001))


def test_gamma_of_a_tiny_reconstruction() -> None:
    """x_hat = x / 10^9, a nearly dead SAE: E x.x_hat must not be lost beside E||x||^2."""
    x_BD, _ = random_pair()
    gamma = metrics(x_BD, 1e-9 * x_BD)["gamma"]
    assert gamma is not None
    assert gamma / 1e-9 == pytest.approx(1.0, rel=1e-9)


def test_gamma_without_overlap_is_undefined() -> None:
    """x_hat orthogonal to x, or 0: E x.x_hat = 0."""
    assert metrics(rows((1, 0), (2, 0)), rows((0, 1), (0, 3)))["gamma"] is None
    assert metrics(rows((1, 0), (2, 0)), rows((0, 0), (0, 0)))["gamma"] is None


def test_gamma_of_an_opposed_reconstruction_is_negative() -> None:
    assert metrics(rows((1, 2), (3, 4)), -rows((1, 2), (3, 4)))["gamma"] == pytest.approx(-1.0)


def test_fvu_is_about_the_mean() -> None:
    """Reconstructing the mean explains nothing, however large the mean; worse than the mean is above 1."""
    x_BD, _ = random_pair()
    mean_BD = x_BD.mean(0).expand_as(x_BD)
    assert metrics(x_BD, mean_BD)["fvu"] == pytest.approx(1.0, rel=1e-12)
    nothing = metrics(x_BD, torch.zeros_like(x_BD))["fvu"]
    assert nothing is not None
    assert nothing > 1
    assert metrics(x_BD, x_BD)["fvu"] == 0.0


def test_fvu_mean_is_of_all_tokens() -> None:
    """In chunks whose means differ a lot, as rows of one topic would."""
    x_BD, x_hat_BD = random_pair()
    x_BD[:20] += 100
    total = (x_BD - x_BD.mean(0)).square().sum()
    expected = (x_BD - x_hat_BD).square().sum() / total
    assert metrics(x_BD, x_hat_BD, parts=2)["fvu"] == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
def test_fvu_of_constant_activations_is_undefined(value: float) -> None:
    """No variance to explain; 0.1 is no binary fraction, so sums of it round."""
    x_BD = torch.full((7, 3), value, dtype=torch.float64)
    found = metrics(x_BD, x_BD + 1)
    assert (found["fvu"], found["explained_variance"]) == (None, None)


def test_one_outlying_dimension() -> None:
    """A constant 3000 in one dimension, as residual streams have: the rest's variance must survive it."""
    x_BD, x_hat_BD = random_pair()
    x_BD[:, 0] = x_hat_BD[:, 0] = 3000.0
    expected = (x_BD - x_hat_BD).square().sum() / (x_BD - x_BD.mean(0)).square().sum()
    assert metrics(x_BD.float(), x_hat_BD.float())["fvu"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("parts", [2, 5, 40])
def test_chunks_change_nothing(parts: int) -> None:
    x_BD, x_hat_BD = random_pair()
    assert metrics(x_BD, x_hat_BD, parts) == pytest.approx(metrics(x_BD, x_hat_BD), rel=1e-12)


def test_an_empty_chunk_changes_nothing() -> None:
    """A chunk of positions of which none counts."""
    x_BD, x_hat_BD = random_pair()
    reconstruction = Reconstruction(5, CPU)
    reconstruction.update(x_BD, x_hat_BD)
    reconstruction.update(x_BD[:0], x_hat_BD[:0])
    assert reconstruction.metrics() == metrics(x_BD, x_hat_BD)


def test_float32_is_summed_in_float64() -> None:
    """3e4 tokens of float32: sums in float32 would be off in the 7th digit."""
    generator = torch.Generator().manual_seed(0)
    x_BD = torch.randn(30_000, 4, generator=generator) + 20
    x_hat_BD = x_BD + 0.1 * torch.randn(30_000, 4, generator=generator)
    wide = metrics(x_BD.double(), x_hat_BD.double())
    assert metrics(x_BD, x_hat_BD) == pytest.approx(wide, rel=1e-13)
    error = (x_BD.double() - x_hat_BD.double()).square().sum(1).mean().item()
    assert wide["mse"] == pytest.approx(error, rel=1e-12)


def test_without_tokens_everything_is_undefined() -> None:
    assert set(Reconstruction(3, CPU).metrics().values()) == {None}
