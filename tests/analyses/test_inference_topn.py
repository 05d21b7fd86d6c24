"""The n largest latents, by hand and in the model."""

from pathlib import Path

import pytest
import torch

from sae_sweep.analyses.inference_topn import Config, largest, run
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.kernels.entries import Entries
from tests.analyses.plain import PlainModel, in_float64


def dense(codes: Entries, width: int) -> list[list[float]]:
    made = torch.zeros(len(codes.offsets) - 1, width)
    for row in range(len(made)):
        part = slice(int(codes.offsets[row]), int(codes.offsets[row + 1]))
        made[row, codes.column_N[part].long()] = codes.value_N[part]
    return made.tolist()


CODES = Entries(torch.tensor([0, 3, 3, 5]), torch.tensor([0, 1, 3, 1, 2]), torch.tensor([1.0, 5.0, 2.0, 3.0, 4.0]))
"""Three tokens: 1 5 . 2, nothing, . 3 4 ."""


def test_of_each_token() -> None:
    assert dense(largest(CODES, CODES.value_N, 1), 4) == [[0, 5, 0, 0], [0, 0, 0, 0], [0, 0, 4, 0]]
    assert dense(largest(CODES, CODES.value_N, 2), 4) == [[0, 5, 0, 2], [0, 0, 0, 0], [0, 3, 4, 0]]
    assert dense(largest(CODES, CODES.value_N, 9), 4) == dense(CODES, 4)
    smallest = largest(CODES, -CODES.value_N, 1)
    assert dense(smallest, 4) == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 3, 0, 0]]


def test_of_each_prompt() -> None:
    """Of all three tokens together latent 1 is largest (5), then 2 (4), then 3 (2); latent 1 stays at the last too."""
    one = torch.zeros(3, dtype=torch.int64)
    assert dense(largest(CODES, CODES.value_N, 1, one), 4) == [[0, 5, 0, 0], [0, 0, 0, 0], [0, 3, 0, 0]]
    assert dense(largest(CODES, CODES.value_N, 3, one), 4) == [[0, 5, 0, 2], [0, 0, 0, 0], [0, 3, 4, 0]]
    two = torch.tensor([0, 0, 1])
    assert dense(largest(CODES, CODES.value_N, 1, two), 4) == [[0, 5, 0, 0], [0, 0, 0, 0], [0, 0, 4, 0]]


@pytest.mark.parametrize("label", ["topk-l0_3-w24-L1-s0", "gated-l0_3-w40-L2-s1"])
@pytest.mark.parametrize("per", ["token", "prompt"])
def test_in_the_model(per: str, label: str, trained: Path, llama_folder: Path) -> None:
    sae = in_float64(trained, label)
    saes = [sae]
    session = Session.of(saes)
    numbers = read({"a": run(session, saes, Config([1, 2, 40], per))}, session.streams.batches)["a"].members[label]
    assert numbers["kl_n40"].value == pytest.approx(numbers["kl"].value, rel=1e-9)
    assert numbers["kl_n40"].control == pytest.approx(numbers["kl"].value, rel=1e-9), "all that fire, in any order"
    assert numbers["kl_n1"].value > numbers["kl_n40"].value
    assert (per == "token") <= (numbers["l0_n1"].value <= 1)
    assert numbers["kl_n1"].standard_error

    def largest_stay(x_RTD: torch.Tensor, counted_RT: torch.Tensor) -> torch.Tensor:
        f_RTF = sae.sae.encode(x_RTD.flatten(0, 1)).view(*x_RTD.shape[:2], -1) * counted_RT[..., None]
        size_RTF = f_RTF if per == "token" else f_RTF.amax(1, keepdim=True)
        stays = torch.zeros_like(size_RTF).scatter(-1, size_RTF.topk(2).indices, 1.0)
        made_RTD = sae.sae.decode((f_RTF * stays).flatten(0, 1)).view_as(x_RTD)
        return torch.where(counted_RT[..., None], made_RTD, x_RTD)

    plain, layer = PlainModel(llama_folder, trained), sae.member.site.layer
    kl, ce = plain.kl_and_ce(layer, largest_stay)
    clean = plain.kl_and_ce(layer, lambda x_RTD, _: x_RTD)[1]
    assert numbers["kl_n2"].value == pytest.approx(kl, rel=1e-6)
    assert numbers["ce_delta_n2"].value == pytest.approx(ce - clean, rel=1e-6)
