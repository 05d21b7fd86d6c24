"""Places are those that torch's own nonzero lists, in its order."""

import pytest
import torch

from sae_sweep.kernels.places import positive_places, true_places

SHAPES = [(1, 1), (3, 5), (4, 8), (7, 64), (0, 8), (64, 96)]


@pytest.mark.parametrize("density", [0.0, 0.003, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_where_a_mask_is_true(shape: tuple[int, int], density: float) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < density
    assert torch.equal(true_places(mask), mask.flatten().nonzero().squeeze(1))
    assert torch.equal(true_places(mask[:, : shape[1] // 2]), mask[:, : shape[1] // 2].flatten().nonzero().squeeze(1))


@pytest.mark.parametrize("density", [0.0, 0.003, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_where_integers_have_no_sign(shape: tuple[int, int], density: float) -> None:
    generator = torch.Generator().manual_seed(2)
    bits = torch.randint(1, 2**15, shape, generator=generator, dtype=torch.int16)
    bits = torch.where(torch.rand(shape, generator=generator) < density, bits, -bits)
    bits[:1, :1] = 0
    for part in (bits, bits[:, : shape[1] // 2]):
        assert torch.equal(positive_places(part), (part >= 0).flatten().nonzero().squeeze(1))
