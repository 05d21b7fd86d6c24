"""Sparsity metrics against values worked out by hand from the definitions."""

import pytest
import torch
from torch import Tensor

from sae_sweep.evaluation.sparsity import Sparsity
from sae_sweep.kernels.entries import above

CPU = torch.device("cpu")


def accumulated(
    f_BF: Tensor, sequence_B: Tensor, norm_F: Tensor | None = None, sequences: int = 3, parts: int = 1
) -> Sparsity:
    width = f_BF.shape[1]
    norms = torch.ones(width) if norm_F is None else norm_F
    sparsity = Sparsity(width, norms, sequences, CPU)
    for f, sequence in zip(f_BF.chunk(parts), sequence_B.chunk(parts), strict=True):
        sparsity.update(above(f), sequence)
    return sparsity


F_BF = torch.tensor(
    [
        [1.0, 0.0, 0.5, 0.0],
        [2.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [3.0, 4.0, 0.0, 0.0],
    ]
)
SEQUENCE_B = torch.tensor([0, 0, 1, 2])


def test_by_hand() -> None:
    """2, 1, 0 and 2 latents fire: L0 5/4. Decoder norms 1, 2, 4, 8: l1 (1 + 2 + 2 + 3 + 8) / 4 = 4.

    Latents fire on 3, 1, 1 and 0 of 4 tokens: alive 3/4, and so are the shares above 1 % and 10 %.
    """
    sparsity = accumulated(F_BF, SEQUENCE_B, torch.tensor([1.0, 2.0, 4.0, 8.0]))
    found = sparsity.metrics()
    del found["l0_se"]
    assert found == {"l0": 1.25, "l1": 4.0, "alive": 0.75, "density_over_1pct": 0.75, "density_over_10pct": 0.75}
    assert sparsity.frequency_F.tolist() == [0.75, 0.25, 0.25, 0.0]
    assert sparsity.tokens == 4


def test_standard_error_of_l0_by_hand() -> None:
    """Sequences with 3, 0, 2 firings in 2, 1, 1 tokens. Without each: 2/2, 5/3, 3/3; mean 11/9.

    Deviations -2/9, 4/9, -2/9; squares sum to 24/81; times 2/3 is 16/81; the root 4/9.
    """
    assert accumulated(F_BF, SEQUENCE_B).metrics()["l0_se"] == pytest.approx(4 / 9, rel=1e-12)


def test_a_sequence_without_tokens_is_none() -> None:
    """Five held-out sequences of which two have no counted token: as if there were three."""
    with_empty = accumulated(F_BF, SEQUENCE_B + 1, sequences=5).metrics()
    assert with_empty == accumulated(F_BF, SEQUENCE_B).metrics()


def test_one_sequence_has_no_standard_error() -> None:
    assert accumulated(F_BF, torch.zeros(4, dtype=torch.int64)).metrics()["l0_se"] is None


def test_densities_are_strict() -> None:
    """Of 1000 tokens, latents fire on 0, 1, 10 (exactly 1 %), 11, 100 (exactly 10 %), 101 and all."""
    fires = torch.tensor([0, 1, 10, 11, 100, 101, 1000])
    f_BF = (torch.arange(1000)[:, None] < fires).float()
    found = accumulated(f_BF, torch.zeros(1000, dtype=torch.int64)).metrics()
    assert (found["alive"], found["density_over_1pct"], found["density_over_10pct"]) == pytest.approx(
        (6 / 7, 4 / 7, 2 / 7), rel=1e-14
    )


def test_only_positive_codes_fire() -> None:
    """-0 and what is below 0 do not; the smallest positive number does."""
    tiny = torch.finfo(torch.float32).tiny
    f_BF = torch.tensor([[-0.0, 0.0, tiny, 1.0]])
    assert accumulated(f_BF, torch.tensor([0])).metrics()["l0"] == 2.0


@pytest.mark.parametrize("parts", [2, 5, 30])
def test_chunks_change_nothing(parts: int) -> None:
    generator = torch.Generator().manual_seed(0)
    f_BF = torch.relu(torch.randn(30, 6, generator=generator, dtype=torch.float64))
    sequence_B = torch.randint(3, (30,), generator=generator)
    whole = accumulated(f_BF, sequence_B)
    pieces = accumulated(f_BF, sequence_B, parts=parts)
    assert pieces.metrics() == pytest.approx(whole.metrics(), rel=1e-12)
    assert torch.equal(pieces.frequency_F, whole.frequency_F)


def test_float32_codes_are_summed_in_float64() -> None:
    """3e4 tokens: a sum in float32 would be off in the 7th digit."""
    f_BF = 20 + torch.rand(30_000, 3, generator=torch.Generator().manual_seed(0))
    norm_F = torch.tensor([1.0, 2.0, 3.0])
    expected = (f_BF.double() * norm_F).sum(1).mean().item()
    found = accumulated(f_BF, torch.zeros(30_000, dtype=torch.int64), norm_F).metrics()["l1"]
    assert found == pytest.approx(expected, rel=1e-12)


def test_without_tokens_everything_is_undefined() -> None:
    assert set(Sparsity(3, torch.ones(3), 2, CPU).metrics().values()) == {None}
