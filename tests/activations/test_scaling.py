import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from sae_sweep.activations import scaling
from sae_sweep.activations.block import Block
from sae_sweep.activations.scaling import SiteStatistics, coefficient_scale, input_scale, site_statistics
from sae_sweep.errors import ConfigError


def block(**sites: Any) -> Any:
    tokens = {hook: torch.zeros(len(x_BD), dtype=torch.int64) for hook, x_BD in sites.items()}
    return Block(0, 0, sites, tokens)


NONE = torch.empty(0, 4)
STATS = SiteStatistics(torch.full((4,), 3.0, dtype=torch.float64), 8.0, 100.0, NONE)
ZERO = SiteStatistics(torch.zeros(4, dtype=torch.float64), 0.0, 0.0, NONE)


def test_statistics_by_hand() -> None:
    stats = site_statistics(block(a=torch.tensor([[3.0, 4.0], [0.0, 1.0]]), b=torch.tensor([[2.0], [-6.0]])))
    assert stats["a"].mean.tolist() == [1.5, 2.5]
    assert (stats["a"].mean_norm, stats["a"].mean_square_norm) == (3.0, 13.0)
    assert stats["b"].mean.tolist() == [-2.0]
    assert (stats["b"].mean_norm, stats["b"].mean_square_norm) == (4.0, 20.0)
    assert stats["a"].mean.dtype == torch.float64
    assert stats["a"].variance == 13.0 - 1.5**2 - 2.5**2
    assert stats["a"].centre is None


def test_centred_statistics_by_hand() -> None:
    stats = site_statistics(block(a=torch.tensor([[3.0, 4.0], [0.0, 0.0]])), centred=True)["a"]
    assert stats.mean.tolist() == [1.5, 2.0]
    assert stats.centre is not None
    assert stats.centre.tolist() == [1.5, 2.0]
    assert (stats.mean_norm, stats.mean_square_norm, stats.variance) == (2.5, 6.25, 6.25)


@pytest.mark.parametrize("seed", range(8))
def test_what_does_not_vary_has_no_variance_below_0(seed: int) -> None:
    """Whose root is taken."""
    x_D = 3 * torch.randn(64, generator=torch.Generator().manual_seed(seed))
    assert 0 <= site_statistics(block(a=x_D.repeat(1000, 1)))["a"].variance < 1e-9


def test_the_sample_is_the_first_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "SAMPLE_ROWS", 2)
    x = torch.arange(6.0).view(3, 2)
    sample = site_statistics(block(a=x))["a"].sample
    assert sample.tolist() == [[0, 1], [2, 3]]
    assert sample.untyped_storage().data_ptr() != x.untyped_storage().data_ptr(), "the block would stay alive"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_float64_and_parts_do_not_show(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_ROWS_AT_ONCE", 7)
    x = (torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * 1e3 + 1e4).to(dtype)
    stats = site_statistics(block(a=x))["a"]
    wide = x.double()
    torch.testing.assert_close(stats.mean, wide.mean(0), rtol=1e-14, atol=0)
    assert stats.mean_norm == pytest.approx(wide.norm(dim=1).mean().item(), rel=1e-14)
    assert stats.mean_square_norm == pytest.approx(wide.square().sum(1).mean().item(), rel=1e-14)


def test_input_scale() -> None:
    assert input_scale("none", 4, STATS) == input_scale("none", 4, ZERO) == 1.0
    assert input_scale("sqrt_d", 4, STATS) == 0.25
    assert input_scale("unit", 4, STATS) == 0.1


def test_scaled_inputs_have_the_norm_that_was_asked() -> None:
    x = torch.randn(50, 9, generator=torch.Generator().manual_seed(1)).double() * 7
    stats = site_statistics(block(a=x))["a"]
    assert (x * input_scale("sqrt_d", 9, stats)).norm(dim=1).mean().item() == pytest.approx(math.sqrt(9))
    assert (x * input_scale("unit", 9, stats)).square().sum(1).mean().item() == pytest.approx(1)


def test_coefficient_scale() -> None:
    assert coefficient_scale("sum", 4, STATS, 0.5) == coefficient_scale("sum", 4, ZERO, 0.5) == 1.0
    assert coefficient_scale("mean_d", 4, STATS, 0.5) == 4.0
    assert coefficient_scale("mean_d_norm", 4, STATS, 0.5) == 4 * 0.5 * 8.0
    assert coefficient_scale("mean_square", 4, STATS, 0.5) == 0.25 * 100.0
    assert coefficient_scale("variance", 4, STATS, 0.5) == 0.25 * (100.0 - 4 * 9.0)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_what_cannot_be_scaled_is_refused(value: float) -> None:
    stats = SiteStatistics(ZERO.mean, value, value, NONE)
    for kind in ("sqrt_d", "unit"):
        with pytest.raises(ConfigError, match=rf"sae\.input_scale={kind} cannot be computed"):
            input_scale(kind, 4, stats)
    for unit in ("mean_d_norm", "mean_square", "variance"):
        with pytest.raises(ConfigError, match=rf"sae\.coefficient_unit={unit} cannot be computed"):
            coefficient_scale(unit, 4, stats, 1.0)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sae\.input_scale=half is not one of none, sqrt_d, unit"):
        input_scale("half", 4, STATS)
    with pytest.raises(ConfigError, match=r"sae\.coefficient_unit=mean is not one of sum, mean_d, mean_d_norm"):
        coefficient_scale("mean", 4, STATS, 1.0)


def test_outliers_are_in_no_average_and_a_crosscoder_leaves_out_those_of_all_its_sites() -> None:
    """Each of two sites has an outlier, in another row: 2 and 3 of 4 rows are left."""
    a, b = torch.tensor([[3.0, 4.0], [0.0, 500.0], [0.0, 1.0], [6.0, 8.0]]), torch.tensor([[2.0], [4.0], [9e3], [6.0]])
    inliers = {"a": torch.tensor([True, False, True, True]), "b": torch.tensor([True, True, False, True])}
    of_both = replace(block(a=a, b=b), inliers=inliers)
    alone, together = site_statistics(of_both), site_statistics(of_both, ("a", "b"))
    assert (alone["a"].mean_norm, alone["b"].mean_norm) == (16 / 3, 4.0)
    assert (together["a"].mean_norm, together["b"].mean_norm) == (7.5, 4.0)
    assert together["a"].mean.tolist() == [4.5, 6.0]
    assert together["b"].sample.tolist() == [[2.0], [6.0]]
