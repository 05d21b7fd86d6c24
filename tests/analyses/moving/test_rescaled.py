"""Members for activations of another mean and size."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sae_sweep.activations.block import Block
from sae_sweep.analyses.moving.rescaled import Size, rescaled
from sae_sweep.analyses.session.finished import finished_saes
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.saes.inference import Lookup


def test_size_by_hand() -> None:
    """Points (1, 0), (3, 0), (2, 4), (2, -4) about (2, 0) have mean squared distance (1 + 1 + 16 + 16) / 4 = 8.5."""
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 4.0], [2.0, -4.0]])
    kept, block = Kept(), Block(0, 0, {"a": x}, {"a": torch.zeros(4)})
    size = Size.of(kept, "here", block, "a")
    assert size.mean_D.tolist() == [2, 0]
    assert size.spread == pytest.approx(8.5**0.5)
    assert Size.of(kept, "here", None, "a").spread == size.spread, "it is kept"


@pytest.mark.parametrize("label", ["topk-l0_3-w24-L1-s0", "gated-l0_3-w40-L2-s1"])
def test_codes_are_those_of_its_own_unit(trained: Path, label: str, generator: Callable[[], torch.Generator]) -> None:
    """Activations three times as large about another mean have the same codes, and their reconstructions move along."""
    (one,) = finished_saes(trained, [label])
    sae = one.sae.mapped(lambda tensor: tensor.double())
    x_ND = torch.randn(50, 32, generator=generator(), dtype=torch.float64)
    own_D, there_D = torch.randn(2, 32, generator=generator(), dtype=torch.float64)
    made = rescaled(sae, Size(own_D, 2.0), Size(there_D, 6.0))
    moved_ND = 3 * (x_ND - own_D) + there_D
    assert (sae.encode(x_ND) > 0).any()
    assert torch.allclose(made.encode(moved_ND), sae.encode(x_ND), atol=1e-9)
    wanted_ND = 3 * (sae.decode(sae.encode(x_ND)) - own_D) + there_D
    assert torch.allclose(made.decode(made.encode(moved_ND)), wanted_ND, atol=1e-9)


@pytest.mark.parametrize("subtract", [False, True])
def test_rows_of_a_lookup_move_along(trained: Path, subtract: bool, generator: Callable[[], torch.Generator]) -> None:
    (one,) = finished_saes(trained, ["gated-l0_3-w40-L2-s1"])
    rows_VD = torch.randn(7, 32, generator=generator(), dtype=torch.float64)
    sae = replace(one.sae.mapped(lambda tensor: tensor.double()), lookup=Lookup(rows_VD, subtract))
    x_ND, tokens_N = torch.randn(50, 32, generator=generator(), dtype=torch.float64), torch.arange(50) % 7
    own_D, there_D = torch.randn(2, 32, generator=generator(), dtype=torch.float64)
    made, moved_ND = rescaled(sae, Size(own_D, 2.0), Size(there_D, 6.0)), 3 * (x_ND - own_D) + there_D
    f_NF = sae.encode(x_ND, tokens_N)
    assert torch.allclose(made.encode(moved_ND, tokens_N), f_NF, atol=1e-9)
    wanted_ND = 3 * (sae.decode(f_NF, tokens_N) - own_D) + there_D
    assert torch.allclose(made.decode(f_NF, tokens_N), wanted_ND, atol=1e-9)


@pytest.fixture
def generator() -> Callable[[], torch.Generator]:
    return lambda: torch.Generator().manual_seed(3)
