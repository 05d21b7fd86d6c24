"""Which held-out positions count for an SAE, by the sites that it reads and reconstructs."""

import torch

from sae_sweep.evaluation.heldout import HeldOut, HeldOutBatch, Places
from sae_sweep.model.suffix import CleanPass

COUNTED = torch.tensor([[False, True, True, True, True]])
TARGETS = torch.tensor([[False, True, True, True, False]])
OUTLIERS = {
    "a": torch.tensor([[True, False, True, False, False]]),
    "b": torch.tensor([[False, False, False, True, True]]),
}


def batch(*, every_position: bool) -> HeldOutBatch:
    tokens_RT = torch.full((1, 5), 7)
    held_out = HeldOut(tokens_RT, torch.tensor([0]), None, 1, every_position, {"a": 5.0, "b": 2.0})
    replaced_RT = torch.ones_like(COUNTED) if every_position else COUNTED
    common = Places(COUNTED, replaced_RT, TARGETS, torch.zeros_like(COUNTED))
    return HeldOutBatch(CleanPass(tokens_RT, {}, torch.zeros(1, 5, 2)), 0, held_out, common, OUTLIERS)


def test_what_is_too_long_at_one_site_of_an_sae_counts_at_none() -> None:
    places = batch(every_position=False).places(("c", "b", "a"))
    assert places.counted_RT.tolist() == places.replaced_RT.tolist() == [[False, True, False, False, False]]
    assert places.target_RT.tolist() == [[False, True, False, False, False]]
    assert places.outliers_RT.tolist() == [[False, False, True, True, True]]  # of what would count


def test_each_sae_goes_by_its_own_sites() -> None:
    one = batch(every_position=False)
    assert one.places(["a"]).counted_RT.tolist() == [[False, True, False, True, True]]
    assert one.places(["b"]).counted_RT.tolist() == [[False, True, True, False, False]]
    assert one.places(["c"]) is one.common
    assert batch(every_position=True).places(["a"]).replaced_RT.all()
