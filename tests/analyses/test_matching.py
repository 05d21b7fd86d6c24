"""Latents that other members find again, by hand, by brute force, and by plain hooks."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_sweep.analyses.matches.assignment import assigned, held_bytes, nearest
from sae_sweep.analyses.matches.correlation import Correlation, shifted
from sae_sweep.analyses.matching import Config, Likeness, mean_of, random_directions, run, stability
from sae_sweep.analyses.session.finished import FinishedSae, finished_saes
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.readings import read
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.recovery import best_cosines
from sae_sweep.kernels.entries import above
from tests.analyses.plain import PlainModel, in_float64


def test_means_by_hand() -> None:
    """Cosines of (1, 0), (0, 2) and (3, 4) with (0, 5): 0, 1 and 4/5. Their mean is 3/5, their variance 28/100, so the
    error is sqrt(0.28 / 3). Back, the best of the one row is 1, and it has no error."""
    rows, others = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.0, 5.0]])
    found = mean_of(best_cosines(rows, others), torch.zeros(2))
    assert (found.value, found.n, found.control) == (pytest.approx(0.6), 3, 0)
    assert found.standard_error == pytest.approx((0.28 / 3) ** 0.5)
    back = mean_of(best_cosines(others, rows), torch.zeros(2))
    assert (back.value, back.standard_error, back.n) == (pytest.approx(1.0), None, 1)


def test_what_is_found_twice_is_given_once() -> None:
    """Both of (1, 0) and (2, 0) have their like in (1, 0), of which there is one: the other is left (-1, 0)."""
    rows, others = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert best_cosines(rows, others).tolist() == [1, 1]
    assert best_cosines(others, rows).tolist() == [1, -1]
    assert sorted(assigned(rows, others, 2).tolist()) == [-1, 1]


@pytest.mark.parametrize("exact", [100, 0])
@pytest.mark.parametrize("sizes", [(4, 6), (6, 4), (5, 5)])
def test_no_assignment_is_better(sizes: tuple[int, int], exact: int) -> None:
    """All assignments of so few are tried. Among candidates a row may stay alone, and then counts 0."""
    generator = torch.Generator().manual_seed(sum(sizes))
    rows, others = (torch.randn(n, 3, generator=generator).double() for n in sizes)
    cosine = torch.nn.functional.cosine_similarity(rows[:, None], others[None], dim=2).numpy()
    small = cosine if len(cosine) <= cosine.shape[1] else cosine.T
    if not exact:
        small = np.maximum(small, 0)
    best = max(
        small[range(len(small)), list(chosen)].sum() for chosen in permutations(range(small.shape[1]), len(small))
    )
    found = assigned(rows, others, candidates=6, exact=exact)
    assert len(found) == min(sizes)
    assert found.sum().item() == pytest.approx(best)


def test_candidates_are_nearly_as_good() -> None:
    """Two noisy copies of 300 directions, in another order."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(300, 32, generator=generator)
    others = (rows + 0.3 * torch.randn(300, 32, generator=generator))[torch.randperm(300, generator=generator)]
    exact, sparse = (assigned(rows, others, 8, exact=most).mean().item() for most in (300, 0))
    assert sparse == pytest.approx(exact, abs=1e-3)
    near, cosine = nearest(*(torch.nn.functional.normalize(each) for each in (rows, others)), 3)
    full = torch.nn.functional.cosine_similarity(rows[:, None], others[None], dim=2)
    assert np.array_equal(near, full.topk(3).indices.numpy())
    assert np.allclose(cosine, full.topk(3).values.numpy(), atol=1e-6)


def test_what_an_assignment_holds_is_known_before_it_begins(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs of 10,000 latents are 1.6 GB. Of 131,072 each has 32 candidates, both ways: 56 bytes for each of 8.4
    million, and a block of 2^24 cosines."""
    assert held_bytes(10_000, 10_000, 32) == 16 * 10**8
    assert held_bytes(131_072, 131_072, 32) == 56 * 2**23 + 2**26
    assert held_bytes(2**15, 16, 32) == 56 * 16 * (2**15 + 16) + 2**26
    monkeypatch.setattr("sae_sweep.analyses.matching.host_bytes", lambda: 9_215)  # 16 bytes for each of 24 x 24
    with pytest.raises(
        ConfigError,
        match=r"s1 have 24 and 24 latents, whose assignment holds 9\.2\d* kB, and this machine has 9\.2\d* kB;",
    ) as told:
        found_in(trained, ["topk-l0_3-w24-L1-s0", "topk-l0_3-w24-L1-s1"])
    assert "\n" not in str(told.value)


def test_random_directions_are_as_good_as_each_other() -> None:
    rows, others = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(7)).double()
    found = mean_of(best_cosines(rows, others), best_cosines(random_directions(rows, 1), random_directions(others)))
    assert abs(found.value - found.control) < 4 * found.standard_error
    assert 0.3 < found.control < 0.5


def test_correlations_are_numpys() -> None:
    one, other = (torch.randn(40, n, generator=torch.Generator().manual_seed(n)).relu().double() for n in (5, 7))
    one[:, 2] = 0
    sums = Correlation(Kept(), "a", (5, 7))
    for part in (slice(0, 25), slice(25, 40)):
        sums.add(above(one[part]), above(other[part]))
    with np.errstate(invalid="ignore"):
        theirs = np.nan_to_num(np.corrcoef(one.T, other.T)[:5, 5:])
    assert np.allclose(sums.matrix().numpy(), theirs)
    turned = shifted(above(one), 3)
    assert torch.equal(turned.value_N, above(one.roll(3, 0)).value_N)
    assert torch.equal(turned.offsets, above(one.roll(3, 0)).offsets)


def test_stability_by_hand() -> None:
    """Three seeds whose pairs reach 0.2, 0.4 and 0.9: without one seed each, those are the means, whose jackknife error
    is sqrt(2/3 x (0.3² + 0.1² + 0.4²))."""
    saes = [FinishedSae(f"s{seed}", Path(), {"seed": seed}) for seed in range(3)]
    pairs = [(saes[0], saes[1]), (saes[0], saes[2]), (saes[1], saes[2])]
    value = {("s0", "s1"): 0.2, ("s0", "s2"): 0.4, ("s1", "s2"): 0.9}
    found = {
        pair: (Likeness(torch.tensor([x]), torch.tensor([x])), Likeness(torch.tensor([0.1]), torch.tensor([0.1])))
        for pair, x in value.items()
    }
    numbers = stability(pairs, found, 0.35)
    number = numbers["assigned over seeds of s0"]
    assert (number.value, number.n, number.control) == (pytest.approx(0.5), 3, pytest.approx(0.1))
    assert number.standard_error == pytest.approx((2 / 3 * (0.09 + 0.01 + 0.16)) ** 0.5)
    assert numbers["assigned_near over seeds of s0"].value == pytest.approx(2 / 3)


ASKED = {"pairs": "seed", "by": "decoder", "density_above": 0.0, "density_below": 1.0, "near": 0.9, "candidates": 8}


def found_in(root: Path, labels: list[str] | None = None, **asked: object) -> object:
    saes = [in_float64(root, sae.label) for sae in finished_saes(root, labels or [])]
    session = Session.of(saes)
    made = run(session, saes, Config(**{**ASKED, **asked}))
    return read({"a": made}, session.streams.batches)["a"]


def test_pairs(trained: Path) -> None:
    seeds = found_in(trained)
    assert len(seeds.members) == 16
    assert set(seeds.members["topk-l0_3-w24-L1-s0"]) == {
        f"{what} topk-l0_3-w24-L1-s1" for what in ("largest", "assigned", "near", "assigned_near")
    }
    assert len(seeds.numbers) == 2 * 8
    widths = found_in(trained, pairs="width")
    assert set(widths.members["topk-l0_3-w24-L1-s0"]) == {
        f"{what} topk-l0_3-w40-L1-s0" for what in ("largest", "assigned", "near", "assigned_near")
    }
    layers = found_in(trained, pairs="layer")
    assert "near topk-l0_3-w24-L2-s0" in layers.members["topk-l0_3-w24-L1-s0"]
    sites = found_in(trained, pairs="site")
    assert len(sites.members["topk-l0_3-w24-L1-s0"]) == 4 * 7


def test_which_latents(trained: Path) -> None:
    labels = ["topk-l0_3-w40-L1-s0", "topk-l0_3-w40-L1-s1"]
    sae = finished_saes(trained, labels)[0]
    counts = {}
    for above_, below in ((0.0, 1.0), (None, 1.0), (0.05, 1.0), (0.0, 0.05)):
        numbers = found_in(trained, labels, density_above=above_, density_below=below).members[labels[0]]
        counts[above_, below] = numbers[f"largest {labels[1]}"].n
    frequency = sae.frequency_F
    assert counts[None, 1.0] == 40
    assert counts[0.0, 1.0] == int((frequency > 0).sum())
    assert counts[0.05, 1.0] == int((frequency > 0.05).sum())
    assert counts[0.0, 0.05] == int(((frequency > 0) & (frequency <= 0.05)).sum())


def test_by_what(trained: Path, llama_folder: Path) -> None:
    labels = ["topk-l0_3-w24-L1-s0", "topk-l0_3-w24-L1-s1"]
    one, other = (in_float64(trained, label) for label in labels)
    name = f"largest {other.label}"
    alive = [sae.alive_F for sae in (one, other)]
    decoder, encoder = (
        found_in(trained, labels, by=by).members[one.label][name].value for by in ("decoder", "encoder")
    )
    rows = [sae.sae.tensors["W_enc"].T[a] for sae, a in zip((one, other), alive, strict=True)]
    assert encoder == pytest.approx(best_cosines(*rows).mean().item())
    assert encoder != decoder
    plain = PlainModel(llama_folder, trained)
    x_ND = plain.activation(1)[plain.counted_RT]
    f, g = (sae.sae.encode(x_ND)[:, a] for sae, a in zip((one, other), alive, strict=True))
    correlation = np.corrcoef(f.T, g.T)[: f.shape[1], f.shape[1] :]
    found = found_in(trained, labels, by="activation").members[one.label]
    assert found[name].value == pytest.approx(correlation.max(1).mean(), rel=1e-6)
    assert found[name].control < found[name].value


def test_what_cannot_be_matched(trained: Path) -> None:
    for asked, said in (
        ({"pairs": "x"}, "pairs=x is not one of seed, site, width, layer"),
        ({"by": "x"}, "by=x is not one of decoder, encoder, activation"),
    ):
        with pytest.raises(ConfigError, match=said):
            found_in(trained, **asked)
    with pytest.raises(ConfigError, match="no two finished members differ so; train more"):
        found_in(trained, ["topk-l0_3-w24-L1-s0", "topk-l0_3-w40-L1-s0"])
