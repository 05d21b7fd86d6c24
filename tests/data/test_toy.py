import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from sae_sweep.config.schema import ToyConfig
from sae_sweep.data.toy import Part, ToyData, raised


def made(seed: int = 0, **values: float | bool) -> ToyData:
    """Six true latents in four dimensions, where nothing else is said."""
    base = {"dimensions": 4, "latents": 6, "active": 2.0, "decay": 0.9, "correlated": True, "noise": 0.0}
    return ToyData(ToyConfig(**(base | values)), seed)  # type: ignore[arg-type]


def codes(data: ToyData, rows: int, part: Part = "training", block: int = 0) -> Tensor:
    return torch.cat(list(data.codes(part, block, rows)))


def activations(data: ToyData, rows: int) -> Tensor:
    return torch.cat([x_bD for x_bD, _ in data.activations("training", 0, rows)])


def test_true_latents_are_random_unit_directions_of_the_seed() -> None:
    truth_GD = made(latents=400, dimensions=50).truth_GD
    assert truth_GD.shape == (400, 50)
    assert torch.allclose(truth_GD.norm(dim=1), torch.ones(400))
    cosines = (truth_GD @ truth_GD.T)[~torch.eye(400, dtype=torch.bool)]
    assert cosines.std().item() == pytest.approx(1 / math.sqrt(50), rel=0.05)
    assert torch.equal(truth_GD, made(latents=400, dimensions=50).truth_GD)
    assert not torch.equal(truth_GD, made(1, latents=400, dimensions=50).truth_GD)


@pytest.mark.parametrize("correlated", [True, False])
def test_a_block_is_replayed_and_no_other_is_like_it(correlated: bool) -> None:
    data = made(correlated=correlated)
    wanted = codes(data, 50, block=3)
    others = [
        codes(data, 50, block=2),
        codes(data, 50, "heldout", 3),
        codes(made(1, correlated=correlated), 50, block=3),
    ]
    assert torch.equal(codes(data, 50, block=3), wanted)
    assert torch.equal(codes(made(correlated=correlated), 50, block=3), wanted)
    assert not any(torch.equal(other, wanted) for other in others)


def test_rows_are_drawn_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_sweep.data.toy._CODE_ELEMENTS", 6 * 8)
    parts = list(made().codes("training", 0, 20))
    assert [len(part) for part in parts] == [8, 8, 4]
    assert len(torch.cat(parts).unique(dim=0)) > 15, "each part is drawn anew"


def test_activations_are_sums_of_directions_times_strengths() -> None:
    data = made()
    codes_BG = codes(data, 100)
    assert torch.allclose(activations(data, 100), codes_BG @ data.truth_GD, atol=1e-6)
    assert codes_BG.min() >= 0
    assert codes_BG.max() <= 1


def test_noise_is_added_to_the_same_codes() -> None:
    quiet, noisy = made(dimensions=40), made(dimensions=40, noise=0.5)
    assert torch.equal(codes(quiet, 500), codes(noisy, 500))
    added = activations(noisy, 500) - activations(quiet, 500)
    assert added.std().item() == pytest.approx(0.5, rel=0.03)
    assert abs(added.mean().item()) < 0.02


def test_uncorrelated_frequencies_and_strengths() -> None:
    rows = 40_000
    codes_BG = codes(made(correlated=False, decay=0.5), rows)
    frequency_G = (codes_BG > 0).double().mean(0)
    for i, frequency in enumerate(frequency_G.tolist()):
        wanted = 2 / 6 * 0.5**i
        assert frequency == pytest.approx(wanted, abs=5 * math.sqrt(wanted * (1 - wanted) / rows)), i
    strengths = codes_BG[codes_BG > 0]
    assert strengths.mean().item() == pytest.approx(0.5, abs=0.01)
    assert strengths.var().item() == pytest.approx(1 / 12, rel=0.03)
    alone = math.prod(1 - 2 / 6 * 0.5**i for i in range(6))
    assert (codes_BG == 0).all(1).double().mean().item() == pytest.approx(alone, abs=0.012), "rows may be empty"


def test_correlated_rows_have_active_latents_on_average_and_none_is_empty() -> None:
    rows = 20_000
    codes_BG = codes(made(latents=64, decay=1.0), rows)
    lone_B = (codes_BG == 1.0).any(1)
    active_B = (codes_BG > 0).sum(1)
    assert active_B.min() == 1
    assert (active_B[lone_B] == 1).all()
    assert codes_BG[lone_B].argmax(1).bincount(minlength=64).min() > 0, "the lone latent is any of them"
    drawn = (active_B * ~lone_B).double().mean().item()
    assert drawn == pytest.approx(2, abs=5 * math.sqrt(2 / rows))
    assert lone_B.double().mean().item() == pytest.approx(math.exp(-2), abs=0.02)


def test_each_row_draws_its_own_probabilities() -> None:
    """With one draw for all rows about half of the latents would hardly ever be active."""
    frequency_G = (codes(made(latents=64, decay=1.0), 20_000) > 0).double().mean(0)
    assert frequency_G.min() > 0.7 * frequency_G.mean()
    assert frequency_G.max() < 1.3 * frequency_G.mean()


def test_correlated_frequencies_fall_by_decay() -> None:
    frequency_G = (codes(made(latents=64, decay=0.95, active=1.0), 60_000) > 0).double().mean(0)
    early, late = frequency_G[:8].mean().item(), frequency_G[32:40].mean().item()
    lone = math.exp(-1) / 64
    assert (late - lone) / (early - lone) == pytest.approx(0.95**32, rel=0.2)


def test_the_covariance_is_symmetric_and_its_diagonal_is_raised() -> None:
    covariance = raised(np.array([[0.2, 0.9], [0.7, 0.1]]))
    lowest = 0.15 - math.sqrt(0.05**2 + 0.8**2)  # of [[0.2, 0.8], [0.8, 0.1]]
    wanted = [[0.2 - 1.001 * lowest, 0.8], [0.8, 0.1 - 1.001 * lowest]]
    assert torch.allclose(covariance, torch.tensor(wanted, dtype=torch.float64))
    already = np.array([[0.9, 0.1], [0.1, 0.8]])
    assert torch.allclose(raised(already), torch.from_numpy(already)), "nothing to raise"


def test_latents_are_active_together_as_the_copula_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probability that both of two latents are active is E[q_i q_j], here drawn with numpy alone."""
    rows = 100_000
    covariance = np.array([[4.0, 0.0, 3.6], [0.0, 1.0, 0.0], [3.6, 0.0, 4.0]])
    monkeypatch.setattr("sae_sweep.data.toy.raised", lambda _: torch.from_numpy(covariance))
    active_BG = (codes(made(latents=3, decay=1.0, active=1.0), rows) > 0).double()
    both_GG = active_BG.T @ active_BG / rows

    def expected(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        z = np.random.default_rng(99).multivariate_normal(np.zeros(3), covariance, size=rows)
        u = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
        q = u / u.sum(1, keepdims=True)
        together: npt.NDArray[np.float64] = q.T @ q / rows
        return together

    wanted, apart = expected(covariance), expected(np.diag(np.diag(covariance)))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert both_GG[i, j].item() == pytest.approx(wanted[i, j], abs=0.004)
        assert abs(wanted[i, j] - apart[i, j]) > 0.008, "or the test could not tell"


@pytest.mark.parametrize("correlated", [True, False])
def test_one_latent_in_one_dimension(correlated: bool) -> None:
    data = made(latents=1, dimensions=1, active=1.0, correlated=correlated)
    codes_BG = codes(data, 100)
    assert (codes_BG > 0).all()
    assert activations(data, 100).abs().max() <= 1


def test_zipf_frequencies() -> None:
    """1, 1/2, ... 1/6 are 2.45 together; two are active of them, and no probability is above 1."""
    rows = 40_000
    frequency_G = (codes(made(correlated=False, zipf=1.0), rows) > 0).double().mean(0)
    for i, frequency in enumerate(frequency_G.tolist()):
        wanted = 2 / 2.45 / (i + 1)
        assert frequency == pytest.approx(wanted, abs=5 * math.sqrt(wanted * (1 - wanted) / rows)), i
    assert (codes(made(correlated=False, zipf=3.0), 1_000)[:, 0] > 0).all()
    together = (codes(made(latents=64, active=1.0, zipf=1.0), 40_000) > 0).double().mean(0)
    lone = math.exp(-1) / 64
    assert ((together[:4].sum() - 4 * lone) / (together[8:16].sum() - 8 * lone)).item() == pytest.approx(
        (1 + 1 / 2 + 1 / 3 + 1 / 4) / sum(1 / i for i in range(9, 17)), rel=0.25
    )


def test_children_are_active_with_their_parents_and_as_often_as_they_would_be() -> None:
    """Latent 2 is below 0, 3 and 4 below 1, 5 below 2."""
    rows = 40_000
    values = {"latents": 6, "correlated": False, "decay": 0.8, "roots": 2, "children": 1}
    active_BG = codes(made(**values), rows) > 0
    for child, parent in ((2, 0), (3, 1), (4, 2), (5, 3)):
        assert active_BG[:, parent][active_BG[:, child]].all()
    for i, frequency in enumerate(active_BG.double().mean(0).tolist()):
        wanted = 2 / 6 * 0.8**i
        assert frequency == pytest.approx(wanted, abs=5 * math.sqrt(wanted * (1 - wanted) / rows)), i
    free = codes(made(**{**values, "roots": 6}), rows) > 0
    assert (free[:, 2] & ~free[:, 0]).any()


def test_only_one_of_exclusive_children_is_active() -> None:
    values = {"latents": 5, "decay": 1.0, "active": 4.0, "roots": 1, "children": 4}
    both, one = (codes(made(**values, exclusive=each), 2_000)[:, 1:] > 0 for each in (False, True))
    assert both.sum(1).max() > 1
    assert one.sum(1).max() == 1
    assert one.double().mean(0).min() > 0.1, "it is any of them"


def test_a_lone_latent_is_a_root() -> None:
    codes_BG = codes(made(latents=6, active=0.05, roots=2, children=2), 500)
    assert (codes_BG > 0).any(1).all()
    assert (codes_BG[:, :2] > 0).any(1).all()


def test_factors_make_latents_active_together() -> None:
    """With one factor each z is half of it, up or down: latents of one sign are active together, others apart."""
    active_BG = (codes(made(latents=40, decay=1.0, active=4.0, rank=1), 40_000) > 0).double()
    correlation_GG = active_BG.T.corrcoef()
    signs_G = torch.sign(correlation_GG[0])
    alike = torch.outer(signs_G, signs_G) > 0
    others = ~torch.eye(40, dtype=torch.bool)
    assert correlation_GG[alike & others].mean() > 0.01 > -0.01 > correlation_GG[~alike & others].mean()
    many = (codes(made(latents=40, decay=1.0, active=4.0, rank=40), 40_000) > 0).double().T.corrcoef()
    assert many[others].abs().mean() < 0.5 * correlation_GG[others].abs().mean()
