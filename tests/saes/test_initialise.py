"""First parameters as the papers (or, where they are silent, the open code) have them."""

import pytest
import torch
from torch import Tensor

from sae_sweep.saes.registry import maths_of
from tests.saes.problems import KINDS, config

D, WIDTH = 6, 50
CENTRE = torch.linspace(-1, 1, D)


def first(kind: str, seed: int = 0, width: int = WIDTH) -> dict[str, Tensor]:
    made = config(kind)
    return maths_of(made).initialise(made, CENTRE, width, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_are_the_ones_the_planner_counts(kind: str) -> None:
    assert {name: tuple(t.shape) for name, t in first(kind).items()} == config(kind).parameters(D, WIDTH)


@pytest.mark.parametrize("width", [5, 12, WIDTH])
@pytest.mark.parametrize("kind", KINDS)
def test_encoder_starts_along_the_decoder(kind: str, width: int) -> None:
    p = first(kind, width=width)
    share = min(1, 2 * D / width) if kind in ("bricken", "gated") else 1
    torch.testing.assert_close(p["W_enc"], share * p["W_dec"])
    assert p["W_enc"].data_ptr() != p["W_dec"].data_ptr()
    norm = 0.1 if kind == "april" else 1.0
    torch.testing.assert_close(p["W_dec"].norm(dim=1), torch.full((width,), norm))
    for name in set(p) - {"W_enc", "W_dec", "b_dec"}:
        assert p[name].count_nonzero() == 0
    assert torch.equal(p["b_dec"], torch.zeros(D) if kind == "april" else CENTRE)


@pytest.mark.parametrize("kind", ["bricken", "gated"])
def test_first_reconstructions_are_as_large_as_the_inputs(kind: str) -> None:
    """Half of many random directions fire; bare transposes would reconstruct F / 2d times the input."""
    made, d, width = config(kind), 40, 4_000
    centre_D = torch.full((d,), 3.0)
    p = maths_of(made).initialise(made, centre_D, width, torch.Generator().manual_seed(0))
    x_BD = centre_D + torch.randn(64, d, generator=torch.Generator().manual_seed(1))
    sae = maths_of(made).fold(made, p, 1.0)
    centred_BD, found_BD = x_BD - centre_D, sae.decode(sae.encode(x_BD)) - centre_D
    slope = float((centred_BD * found_BD).sum() / centred_BD.square().sum())
    assert slope == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides(kind: str) -> None:
    assert torch.equal(first(kind)["W_dec"], first(kind)["W_dec"])
    assert not torch.equal(first(kind)["W_dec"], first(kind, seed=1)["W_dec"])


@pytest.mark.parametrize("kind", KINDS)
def test_unit_decoder_is_the_constraint_of_the_paper(kind: str) -> None:
    assert maths_of(config(kind)).unit_decoder == (kind != "april")
