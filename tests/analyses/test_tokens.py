"""Directions of tokens, by hand and by plain hooks."""

from pathlib import Path

import pytest
import torch

from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.analyses.tokens import Config, last_of_rows, nearest_token, run, tables_of
from tests.analyses.plain import PlainModel, in_float64

UNIGRAM = torch.tensor([[1.0, 1.0], [3.0, 1.0]])


def test_by_hand() -> None:
    """Less their mean (2, 1) the two tokens are (-1, 0) and (1, 0); (1, 1) is nearest the first as they are."""
    tables = tables_of(UNIGRAM, None)
    assert tables["residual"].tolist() == [[-1, 0], [1, 0]]
    x = torch.tensor([[1.0, 1.0], [9.0, 3.0]])
    assert nearest_token(x, tables["unigram"]).tolist() == [0, 1]
    assert nearest_token(x, tables["residual"]).tolist() == [1, 1]
    assert set(tables_of(UNIGRAM, UNIGRAM)) == {"unigram", "residual", "lookup"}
    counted = torch.tensor([[True, True, False], [False, False, False], [False, False, True]])
    assert last_of_rows(counted).tolist() == [[False, True, False], [False] * 3, [False, False, True]]


def test_the_nearest_of_a_bfloat16_model() -> None:
    """Angles to the axis are 0.124 and, of the activation, 0.078: nearer the second, which bfloat16 cannot tell."""
    unigram, x = torch.tensor([[1.0, 0.0], [1.0, 0.125]]).bfloat16(), torch.tensor([[1.0, 0.078125]]).bfloat16()
    assert nearest_token(x, tables_of(unigram, None)["unigram"]).tolist() == [1]


def test_by_plain_hooks(trained: Path, llama_folder: Path) -> None:
    sae = in_float64(trained, "topk-l0_3-w24-L1-s0")
    session = Session.of([sae])
    found = read({"a": run(session, [sae], Config(0.3))}, session.streams.batches)["a"].members[sae.label]
    plain = PlainModel(llama_folder, trained)
    x_ND, tokens_N = plain.activation(1)[:, -1], plain.tokens_RT[:, -1]
    here_N = plain.counted_RT[:, -1]
    assert here_N.all()
    plain.tokens_RT = torch.stack([torch.ones(300, dtype=torch.int64), torch.arange(300)], dim=1)  # 1 is BOS
    plain.counted_RT = torch.ones_like(plain.tokens_RT, dtype=torch.bool)
    table_VD = plain.activation(1)[:, 1]
    unit_FD = torch.nn.functional.normalize(sae.sae.tensors["W_dec"][sae.alive_F], dim=1)
    for name, directions_VD in (("unigram", table_VD), ("residual", table_VD - table_VD.mean(0))):
        unit_VD = torch.nn.functional.normalize(directions_VD, dim=1)
        accuracy = ((x_ND @ unit_VD.T).argmax(1) == tokens_N).double().mean().item()
        assert found[f"detector_{name}"].value == pytest.approx(accuracy)
        assert found[f"detector_{name}"].control == pytest.approx(1 / 300)
        best_A = (unit_FD @ unit_VD.T).amax(1)
        assert found[f"cosine_{name}"].value == pytest.approx(best_A.mean().item())
        assert found[f"latents_near_{name}"].value == pytest.approx((best_A >= 0.3).double().mean().item())
