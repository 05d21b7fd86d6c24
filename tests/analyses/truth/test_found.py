"""True latents with learned ones, by hand."""

import pytest
import torch

from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.truth import found
from sae_sweep.analyses.truth.found import Firing, Matched
from sae_sweep.kernels.entries import Entries

TRUTH = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
DECODER = torch.tensor([[5.0, 5.0], [2.0, 0.0], [0.0, -1.0]])
"""The first is dead; the second is nearest the first two true latents, the third is the last one's opposite."""
ALIVE = torch.tensor([False, True, True])


def test_each_learned_latent_is_given_once() -> None:
    """Absolute cosines are 1, 0.6, 0 with latent 1 and 0, 0.8, 1 with latent 2: the first and last true latents have
    them. The best cosines are 1, 0.6 and 0."""
    matched = Matched.of(TRUTH, DECODER, ALIVE)
    assert matched.best_G.tolist() == pytest.approx([1, 0.6, 0])
    assert matched.partner_G.tolist() == [1, -1, 2]
    assert matched.cosine_G.tolist() == pytest.approx([1, 0, 1])
    nothing = Matched.of(TRUTH, DECODER, torch.zeros(3, dtype=torch.bool))
    assert nothing.partner_G.tolist() == [-1, -1, -1]
    assert nothing.best_G.tolist() == nothing.cosine_G.tolist() == [0, 0, 0]


def test_of_many_each_has_its_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found, "EXACT", 2)
    assert Matched.of(TRUTH, DECODER, ALIVE).partner_G.tolist() == [1, 2, 2]


def test_it_is_kept() -> None:
    kept = Kept()
    first = Matched.kept(kept, "a", TRUTH, DECODER, ALIVE)
    again = Matched.kept(kept, "a", TRUTH[:0], DECODER, ALIVE)
    assert again.partner_G.tolist() == first.partner_G.tolist() == [1, -1, 2]


def test_f1_of_partners() -> None:
    """Latents 1 and 2 tell of true latents 0 and 2. Of four rows 0 is active in the first two and its partner fires in
    the first and third: F1 is 2 / 4, and two rows on, where it fires in the third and first, the same. 2 is active in
    the last, and its partner fires there alone: 1, and at other rows 0. Nothing tells of 1."""
    active = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).bool()
    codes = Entries(torch.tensor([0, 2, 2, 3, 4]), torch.tensor([0, 1, 1, 2]), torch.ones(4))
    firing = Firing(Kept(), "a", torch.tensor([1, -1, 2]), 3, torch.device("cpu"))
    firing.add(codes, active)
    assert firing.active_G.tolist() == [2, 1, 1]
    assert firing.f1_G.tolist() == [0.5, 0, 1]
    assert firing.chance_G.tolist() == [0.5, 0, 0]
    firing.add(Entries(torch.tensor([0, 1]), torch.tensor([2]), torch.ones(1)), active[:1])
    assert firing.f1_G.tolist() == [pytest.approx(0.4), 0, pytest.approx(2 / 3)]
