"""Places at which latents fire, by hand, in one batch and in two."""

import torch

from sae_sweep.analyses.contexts.places import NOTHING, Place, Places, best_of_rows, dense
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.kernels.entries import Entries

F_LRT = torch.tensor([[[0.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0]]])


def test_codes_as_rows() -> None:
    """Two tokens count, in a row each; latent 3 is asked for before latent 1, and latent 0 is not."""
    codes = Entries(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 3]), torch.tensor([9.0, 5.0, 7.0]))
    counted = torch.tensor([[False, True], [True, False]])
    assert dense(codes, counted, torch.tensor([3, 1])).tolist() == [[[0, 0], [7, 0]], [[0, 5], [0, 0]]]


def test_the_best_of_each_row() -> None:
    assert best_of_rows(F_LRT)[0].tolist() == [
        [NOTHING, 2, NOTHING, NOTHING],
        [NOTHING, NOTHING, NOTHING, 3],
        [NOTHING, NOTHING, NOTHING, NOTHING],
    ]


def test_places_are_the_same_in_parts() -> None:
    whole, parts = Places(Kept(), "a", (1, 2), 1), Places(Kept(), "a", (1, 2), 1)
    whole.add(best_of_rows(F_LRT), F_LRT, 10)
    for first in range(3):
        part = F_LRT[:, first : first + 1]
        parts.add(best_of_rows(part), part, 10 + first)
    expected = [Place(11, 2, 3, [0.0, 3.0]), Place(10, 0, 1, [0.0, 2.0, 1.0])]
    assert whole.of(0, 4) == parts.of(0, 4) == expected
    assert [place.activation for place in expected] == [3, 2]
