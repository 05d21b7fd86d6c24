"""Trees of true latents, by hand."""

import torch

from sae_sweep.data.trees import Trees

TREES = Trees(9, 2, 2)
"""0 has 2 and 3, 1 has 4 and 5; 2 has 6 and 7, 3 has 8."""


def active(*places: int) -> torch.Tensor:
    row = torch.zeros(1, 9, dtype=torch.bool)
    row[0, list(places)] = True
    return row


def held(*places: int) -> list[int]:
    return TREES.held(active(*places))[0].nonzero().squeeze(1).tolist()


def test_parents() -> None:
    assert TREES.parent_C.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert Trees(3, 3, 4).parent_C.tolist() == []
    assert Trees(3, 3, 4).held(torch.ones(1, 3, dtype=torch.bool)).all()


def test_a_latent_is_active_where_its_parents_are() -> None:
    assert held(0, 2, 6) == [0, 2, 6]
    assert held(0, 6) == [0], "2 is between them"
    assert held(2, 6, 8) == [], "no root is"
    assert held(0, 1, 3, 4, 7, 8) == [0, 1, 3, 4, 8]


def test_one_of_a_parent_s_children_stays() -> None:
    """Of 2 and 3 the one with the larger number, and with it its own children; 4 has no rival."""
    everything = active(0, 1, 2, 3, 4, 6, 7, 8)
    chosen = torch.tensor([[0.9, 0.9, 0.2, 0.5, 0.1, 0.9, 0.4, 0.3, 0.1]])
    assert TREES.held(everything, chosen)[0].nonzero().squeeze(1).tolist() == [0, 1, 3, 4, 8]
    chosen[0, 2] = 0.6
    assert TREES.held(everything, chosen)[0].nonzero().squeeze(1).tolist() == [0, 1, 2, 4, 6]


def test_given_parents() -> None:
    """Of 0.5 and 0.4: 0.2 and 0.5 below the first are 0.4 and 1, 0.1 below the second 0.25; what is below 0 is 0."""
    found = TREES.given_parents(torch.tensor([0.5, 0.4, 0.2, 0.5, 0.1, 0.8, 0.05, 0.0, 0.25]))
    assert torch.allclose(found, torch.tensor([0.5, 0.4, 0.4, 1.0, 0.25, 1.0, 0.25, 0.0, 0.5]))
    assert TREES.given_parents(torch.zeros(9)).tolist() == [0.0] * 9
