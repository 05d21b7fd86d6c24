"""Parents and children among latents, by hand."""

from pathlib import Path

import pytest
import torch

from sae_sweep.analyses.session.finished import finished_saes
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.analyses.splitting import Config, family_of, parents, run, share
from sae_sweep.errors import ConfigError
from tests.analyses.plain import PlainModel, in_float64

SMALL = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).double()
LARGE = torch.tensor([[0.8, 0.6], [1.0, 0.1], [0.0, -1.0], [0.1, 1.0]]).double()
"""The first two are children of (1, 0) from 0.8 on, the last of (0, 1); (0, -1) is most like (1, 0), with cosine 0."""


def test_by_hand() -> None:
    all_alive = torch.ones(3, dtype=torch.bool), torch.ones(4, dtype=torch.bool)
    found = parents(SMALL, LARGE, *all_alive, 0.7)
    assert found.parent_G.tolist() == [0, 0, -1, 1]
    assert found.children_A.tolist() == [2, 1, 0]
    assert found.novel_A.tolist() == [False, False, True, False]
    assert parents(SMALL, LARGE, *all_alive, 0.9).parent_G.tolist() == [-1, 0, -1, 1]
    dead = parents(SMALL, LARGE, torch.tensor([False, True, True]), torch.tensor([True, True, True, False]), 0.5)
    assert dead.parent_G.tolist() == [1, -1, -1, -1], "(0.8, 0.6) is now most like (0, 1)"
    assert dead.children_A.tolist() == [1, 0]
    number = share(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.5]))
    assert (number.value, number.n, number.control) == (pytest.approx(1 / 3), 3, 0.5)


def test_in_the_model(trained: Path, llama_folder: Path) -> None:
    labels = [f"topk-l0_3-w{width}-L1-s{seed}" for width in (24, 40) for seed in (0, 1)]
    saes = [in_float64(trained, label) for label in labels]
    session, child = Session.of(saes), 0.3
    found = read({"a": run(session, saes, Config(child))}, session.streams.batches)["a"]
    small, large = saes[0], saes[2]
    own = found.members[small.label]
    assert own[f"same_width_children {labels[1]}"].n == int(small.alive_F.sum())
    assert found.members[large.label][f"novel {small.label}"].n == int(large.alive_F.sum())
    plain = PlainModel(llama_folder, trained)
    x_ND = plain.activation(1)[plain.counted_RT]
    f, g = (sae.sae.encode(x_ND) > 0 for sae in (small, large))
    parent_G = family_of(small, large, child).parent_G
    fired = covered = 0
    for latent in parent_G[parent_G >= 0].unique():
        children = g[:, parent_G == latent].any(1)
        fired += int(f[:, latent].sum())
        covered += int((f[:, latent] & children).sum())
    assert fired > 0
    number = own[f"covered {large.label}"]
    assert (number.value, number.n) == (pytest.approx(covered / fired), fired)


def test_what_cannot_be_asked(trained: Path) -> None:
    saes = finished_saes(trained, ["topk-l0_3-w24-L1-s0", "topk-l0_3-w24-L2-s0"])
    with pytest.raises(ConfigError, match=r"analysis splitting: no two finished members differ so"):
        next(run(Session.of(saes), saes, Config(0.7)))
    with pytest.raises(ConfigError, match=r"analysis.splitting.child=2 must be above 0 and at most 1"):
        next(run(Session.of(saes), saes, Config(2.0)))
