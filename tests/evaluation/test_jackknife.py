"""The jackknife against a loop that leaves one sequence out at a time."""

from math import sqrt

import pytest
import torch
from torch import Tensor

from sae_sweep.evaluation.jackknife import means_ratio_standard_error, ratio_standard_error


def naive(numerator: list[float], denominator: list[float]) -> float:
    n = len(numerator)
    ratios = [sum(numerator[:i] + numerator[i + 1 :]) / sum(denominator[:i] + denominator[i + 1 :]) for i in range(n)]
    average = sum(ratios) / n
    return sqrt((n - 1) / n * sum((ratio - average) ** 2 for ratio in ratios))


def random(seed: int, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    denominator_R = 1 + 9 * torch.rand(n, generator=generator, dtype=torch.float64)
    noise_R = torch.randn(n, generator=generator, dtype=torch.float64)
    return 0.8 * denominator_R + noise_R, denominator_R


@pytest.mark.parametrize(("seed", "n"), [(0, 2), (1, 3), (2, 17), (3, 200)])
def test_equals_the_loop(seed: int, n: int) -> None:
    numerator_R, denominator_R = random(seed, n)
    expected = naive(numerator_R.tolist(), denominator_R.tolist())
    assert ratio_standard_error(numerator_R, denominator_R) == pytest.approx(expected, rel=1e-10)


def test_of_a_mean_is_the_textbook_standard_error() -> None:
    """With equal denominators the ratio is a mean, whose jackknife is s / sqrt(n)."""
    numerator_R, _ = random(0, 12)
    expected = numerator_R.std().item() / sqrt(12)
    assert ratio_standard_error(numerator_R, torch.ones_like(numerator_R)) == pytest.approx(expected, rel=1e-12)


def test_is_paired() -> None:
    """What numerator and denominator share cancels: a constant ratio is known exactly, whatever the sequences."""
    _, denominator_R = random(0, 9)
    assert ratio_standard_error(0.75 * denominator_R, denominator_R) == pytest.approx(0.0, abs=1e-15)


def test_predicts_the_spread_of_the_ratio() -> None:
    """Over many held-out sets, the ratio spreads about as the jackknife of one of them says."""
    sets = [random(seed, 100) for seed in range(300)]
    spread = torch.stack([numerator.sum() / denominator.sum() for numerator, denominator in sets]).std().item()
    errors = [ratio_standard_error(*one) for one in sets]
    assert all(error is not None for error in errors)
    assert sum(error for error in errors if error is not None) / 300 == pytest.approx(spread, rel=0.15)


def test_sequences_with_nothing_in_them_are_left_out() -> None:
    numerator_R, denominator_R = random(0, 8)
    empty_R = torch.zeros(3, dtype=torch.float64)
    padded = ratio_standard_error(torch.cat([empty_R, numerator_R]), torch.cat([empty_R, denominator_R]))
    assert padded == ratio_standard_error(numerator_R, denominator_R)


def test_a_negative_denominator_counts() -> None:
    """Ablation helps on some sequences: the clean cross-entropy is above the ablated one."""
    numerator, denominator = [4.0, -1.0, 6.0, 3.0], [5.0, -2.0, 7.0, 4.0]
    found = ratio_standard_error(torch.tensor(numerator).double(), torch.tensor(denominator).double())
    assert found == pytest.approx(naive(numerator, denominator), rel=1e-12)


def test_a_sequence_that_adds_to_the_numerator_alone_counts() -> None:
    """Ablation does nothing to the first row's number, and the SAE does: without each row 3/4, 3/2 and 2/2."""
    found = ratio_standard_error(torch.tensor([1.0, 1.0, 2.0]).double(), torch.tensor([0.0, 2.0, 2.0]).double())
    left = [3 / 4, 3 / 2, 2 / 2]
    assert found == pytest.approx(sqrt(2 / 3 * sum((each - sum(left) / 3) ** 2 for each in left)))


@pytest.mark.parametrize("denominator", [[], [1.0], [1.0, 0.0], [0.0, 0.0]])
def test_fewer_than_two_sequences_have_none(denominator: list[float]) -> None:
    denominator_R = torch.tensor(denominator, dtype=torch.float64)
    assert ratio_standard_error(denominator_R.clone(), denominator_R) is None


def test_a_ratio_that_one_sequence_holds_up_has_none() -> None:
    """Without the third sequence the denominator is 1 - 1 = 0, so the ratio is undefined: not infinite, not NaN."""
    denominator_R = torch.tensor([1.0, -1.0, 3.0], dtype=torch.float64)
    assert ratio_standard_error(torch.ones_like(denominator_R), denominator_R) is None


def test_of_two_means_by_hand() -> None:
    """Means 3 and 2 of which each half is left out in turn: (4 / 2, 2 / 2), so 1.5 with an error of 1/2."""
    one_R, other_R = torch.tensor([2.0, 4.0]).double(), torch.tensor([4.0, 8.0]).double()
    count_R, other_count_R = torch.tensor([1.0, 1.0]).double(), torch.tensor([2.0, 4.0]).double()
    assert means_ratio_standard_error(one_R, count_R, other_R, other_count_R) == pytest.approx(0.5)
    assert means_ratio_standard_error(one_R[:1], count_R[:1], other_R[:1], other_count_R[:1]) is None
    equal = torch.ones(9).double()
    numerator_R, denominator_R = random(0, 9)
    plain = ratio_standard_error(numerator_R, denominator_R)
    assert means_ratio_standard_error(numerator_R, equal, denominator_R, equal) == pytest.approx(plain)
