"""Sparse maps and latents that fire together: by hand, and of members against regressions of plain codes."""

from io import BytesIO
from pathlib import Path

import pytest
import torch
from scipy.io import mmread
from torch import Tensor

from sae_sweep.analyses.connections import Config, run
from sae_sweep.analyses.maps.lasso import explained, sparse_map
from sae_sweep.analyses.maps.together import Together, clustered, within
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.kernels.entries import Entries
from tests.analyses.plain import PlainModel, in_float64

LABELS = ["gated-l0_3-w24-L1-s0", "gated-l0_3-w24-L2-s0"]


def test_maps_by_hand() -> None:
    """Of inputs that are not correlated each weight is what its correlation is more than l1. Of 0.5 with correlation
    0.8 the target's variance 2 x 0.5 x 0.8 - 0.25 is explained."""
    W = sparse_map(torch.eye(2), torch.tensor([[0.8], [0.1]]), 0.3)
    assert W[:, 0].tolist() == pytest.approx([0.5, 0], abs=1e-3)
    assert explained(W, torch.eye(2), torch.tensor([[0.8], [0.1]])).item() == pytest.approx(0.55, abs=1e-3)


def test_maps_of_inputs_that_exclude_each_other() -> None:
    """With the correlation -0.9, two weights of 0.8 and -0.8 give each input 0.8 + 0.9 x 0.8 = 1.52 of the target: what
    is 1.57 and -1.57, less an l1 of 0.05. Equal weights give next to nothing, however large."""
    inputs, both = torch.tensor([[1.0, -0.9], [-0.9, 1.0]]), torch.tensor([[1.57], [-1.57]])
    assert sparse_map(inputs, both, 0.05)[:, 0].tolist() == pytest.approx([0.8, -0.8], abs=1e-3)


def test_maps_of_nothing() -> None:
    """A member of which no latent fires gives no inputs, or no targets: nothing is explained of the one's, and of the
    other there is nothing."""
    W = sparse_map(torch.zeros(0, 0), torch.zeros(0, 3), 0.1)
    assert (W.shape, explained(W, torch.zeros(0, 0), torch.zeros(0, 3)).tolist()) == ((0, 3), [0, 0, 0])
    assert sparse_map(torch.eye(2), torch.zeros(2, 0), 0.1).shape == (2, 0)


def test_maps_are_where_the_loss_is_smallest() -> None:
    """Its gradient is l1 against the sign of each weight, and no larger at weights of 0."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, 6, generator=generator), torch.randn(500, 3, generator=generator)
    x[:, 1] += x[:, 0]
    y += x[:, :3]
    both = torch.cat([x, y], 1).double().T.corrcoef()
    xx, xy = both[:6, :6], both[:6, 6:]
    W = sparse_map(xx, xy, 0.1)
    slope = xx @ W - xy
    assert ((slope + 0.1 * W.sign()).abs()[W != 0] < 1e-3).all()
    assert (slope.abs()[W == 0] < 0.1 + 1e-3).all()
    assert 3 <= (W != 0).sum() < 18


def test_counts_by_hand() -> None:
    """Latents 0 and 2 fire together on two tokens, 1 fires alone."""
    together = Together(Kept(), "a", 3)
    codes = Entries(torch.tensor([0, 2, 3, 5]), torch.tensor([0, 2, 1, 0, 2]), torch.tensor([9.0, 1, 1, 1, 1]))
    together.add(codes)
    assert mmread(BytesIO(together.text(1).encode())).toarray().tolist() == [[2, 0, 0], [0, 1, 0], [2, 0, 2]]
    assert mmread(BytesIO(together.text(2).encode())).toarray().tolist() == [[2, 0, 0], [0, 0, 0], [2, 0, 2]]


def test_clusters_by_hand() -> None:
    alike = torch.eye(4).double()
    alike[0, 2] = alike[2, 0] = 0.9
    alike[1, 3] = alike[3, 1] = 0.7
    cluster = clustered(alike, 2)
    assert cluster[0] == cluster[2] != cluster[1] == cluster[3]
    assert within(alike, cluster).tolist() == [0.9, 0.7, 0.9, 0.7]
    assert len(within(alike, torch.arange(4))) == 0


def test_in_the_model(trained: Path, llama_folder: Path) -> None:
    saes = [in_float64(trained, label) for label in LABELS]
    session = Session.of(saes)
    found = read({"a": run(session, saes[::-1], Config([0.05], 4, 1))}, session.streams.batches)["a"]
    plain = PlainModel(llama_folder, trained)
    codes = [sae.sae.encode(plain.activation(sae.member.site.layer)[plain.counted_RT]) for sae in saes]
    odd_N = plain.counted_RT.nonzero()[:, 0] % 2 == 1
    chosen = [((f_NF[odd_N].std(0) > 0) & (f_NF[~odd_N].std(0) > 0)).nonzero()[:, 0] for f_NF in codes]
    text = found.files[f"{LABELS[1]}/analyses/connections/from-{LABELS[0]}-l1_0.05.mtx"]
    W = torch.from_numpy(mmread(BytesIO(text.encode())).toarray())
    assert W.shape == (24, 24)
    W_AB = W[chosen[0]][:, chosen[1]]
    assert (W_AB != 0).sum() == (W != 0).sum() > 0

    def standard(x_NF: Tensor) -> Tensor:
        return (x_NF - x_NF.mean(0)) / x_NF.std(0, correction=0)

    x, y = (standard(f_NF[~odd_N][:, own]) for f_NF, own in zip(codes, chosen, strict=True))
    slope = x.T @ (x @ W_AB - y) / len(x)
    assert ((slope + 0.05 * W_AB.sign()).abs()[W_AB != 0] < 2e-3).all()
    assert (slope.abs()[W_AB == 0] < 0.05 + 2e-3).all()
    x, y = (standard(f_NF[odd_N][:, own]) for f_NF, own in zip(codes, chosen, strict=True))
    number = found.members[LABELS[1]][f"explained_l1_0.05 {LABELS[0]}"]
    assert number.value == pytest.approx(1 - (x @ W_AB - y).square().mean(0).mean().item(), abs=1e-3)
    assert number.n == len(chosen[1])
    assert number.value > number.control
    inputs = found.members[LABELS[1]][f"inputs_l1_0.05 {LABELS[0]}"]
    assert inputs.value == pytest.approx((W_AB != 0).sum().item() / len(chosen[1]))
    counts = mmread(BytesIO(found.files[f"{LABELS[0]}/analyses/connections/coactivation.mtx"].encode())).toarray()
    fired = (codes[0] > 0).long()
    assert (torch.from_numpy(counts) == (fired.T @ fired).tril()).all()
    own = found.members[LABELS[0]]["within_clusters"]
    alike = standard(codes[0][odd_N][:, chosen[0]])
    alike_AA = alike.T @ alike / len(alike)
    groups = found.details[LABELS[0]]
    place = {latent: i for i, latent in enumerate(chosen[0].tolist())}
    means = [
        sum(alike_AA[place[one], place[other]].item() for other in group if other != one) / (len(group) - 1)
        for group in groups
        for one in group
    ]
    assert (own.value, own.n) == (pytest.approx(sum(means) / len(means)), len(means))


def test_what_cannot_be_asked(trained: Path) -> None:
    saes = [in_float64(trained, label) for label in LABELS[:1]]
    with pytest.raises(ConfigError, match=r"no two finished members differ so.*analysis.connections.l1=\[\]"):
        next(run(Session.of(saes), saes, Config([0.1], 4, 1)))
    with pytest.raises(ConfigError, match="every l1 must be above 0"):
        next(run(Session.of(saes), saes, Config([0.0], 4, 1)))
    assert next(run(Session.of(saes), saes, Config([], 4, 1))) is None
