"""Cross-entropy and KL of a pass, and what is made of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from sae_sweep.evaluation.splice import PassLosses, accumulate, splice_metrics
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.plan import constants

CPU = torch.device("cpu")


def losses(ce: list[float], kl: list[float] | None = None) -> PassLosses:
    made = PassLosses(len(ce), CPU)
    made.ce_R += torch.tensor(ce, dtype=torch.float64)
    made.kl_R += torch.tensor(kl if kl is not None else [0.0] * len(ce), dtype=torch.float64)
    return made


def judged(sae: list[float]) -> dict[str, float | None]:
    """Two sequences of 1 and 3 targets; sums of CE 2 and 6 clean, 12 and 8 with zero ablation, 4 and 8 with mean."""
    return splice_metrics(
        losses([2.0, 6.0]),
        losses([12.0, 8.0], [6.0, 4.0]),
        losses([4.0, 8.0]),
        losses(sae, [1.0, 0.5]),
        torch.tensor([1.0, 3.0], dtype=torch.float64),
    )


def test_by_hand() -> None:
    """SAE sums 3 and 7. Means over 4 targets: clean 2, sae 2.5, zero 5, mean 3.

    Recovered (5 - 2.5) / (5 - 2) = 5/6, where the mean of the sequences' own ratios is (9/10 + 1/2) / 2; about the mean
    (3 - 2.5) / (3 - 2) = 1/2. KL 1.5/4, of zero 10/4. Standard error: numerators 9 and 1, denominators 10, 2; without
    each 1/2 and 9/10, each 1/5 from their mean; sqrt(1/2 x 2/25) = 1/5.
    """
    expected = {
        "ce_clean": 2.0,
        "ce_sae": 2.5,
        "ce_zero": 5.0,
        "ce_mean": 3.0,
        "ce_delta": 0.5,
        "ce_recovered": 5 / 6,
        "ce_recovered_mean": 0.5,
        "ce_recovered_se": 0.2,
        "kl": 0.375,
        "kl_zero": 2.5,
    }
    assert judged([3.0, 7.0]) == pytest.approx(expected, rel=1e-14)


def test_recovered_is_not_clipped() -> None:
    """Better than clean (sums 1 and 5: mean 1.5) and worse than zero (20 and 8: mean 7)."""
    better, worse = judged([1.0, 5.0]), judged([20.0, 8.0])
    assert better["ce_recovered"] == pytest.approx(3.5 / 3)
    assert better["ce_recovered_mean"] == pytest.approx(1.5)
    assert better["ce_delta"] == pytest.approx(-0.5)
    assert worse["ce_recovered"] == pytest.approx(-2 / 3)
    assert worse["ce_recovered_mean"] == pytest.approx(-4.0)


def test_an_ablation_that_costs_nothing_leaves_recovery_undefined() -> None:
    clean, sae = losses([2.0, 6.0]), losses([3.0, 7.0])
    targets_R = torch.tensor([1.0, 3.0], dtype=torch.float64)
    found = splice_metrics(clean, losses([2.0, 6.0]), losses([4.0, 8.0]), sae, targets_R)
    assert (found["ce_recovered"], found["ce_recovered_se"]) == (None, None)
    assert found["ce_recovered_mean"] == pytest.approx(0.5)
    found = splice_metrics(clean, losses([4.0, 8.0]), losses([2.0, 6.0]), sae, targets_R)
    assert found["ce_recovered_mean"] is None
    assert found["ce_recovered"] == pytest.approx(0.5)


def test_ablation_that_helps() -> None:
    """Zero below clean: the ratio is still what it says. Clean 2, zero 1, sae 1.5 are half way."""
    found = splice_metrics(losses([8.0]), losses([4.0]), losses([4.0]), losses([6.0]), torch.tensor([4.0]).double())
    assert found["ce_recovered"] == pytest.approx(0.5)
    assert found["ce_recovered_se"] is None  # one sequence


def test_without_targets_everything_is_undefined() -> None:
    """Rows whose counted positions all come before a special token or the row's end."""
    empty = losses([0.0, 0.0])
    found = splice_metrics(empty, empty, empty, empty, torch.zeros(2, dtype=torch.float64))
    assert set(found.values()) == {None}


@pytest.fixture(scope="module")
def model(gpt2_folder: Path, load_float64: Callable[[Path], LanguageModel]) -> LanguageModel:
    return load_float64(gpt2_folder)


def accumulated(model: LanguageModel, clean_ND: Tensor, other_ND: Tensor, next_N: Tensor) -> dict[str, PassLosses]:
    sums = {name: PassLosses(2, CPU) for name in ("clean", "other")}
    sequence_N = torch.arange(len(next_N)) % 2
    accumulate(model, clean_ND, {"other": other_ND}, next_N, sequence_N, sums)
    return sums


@pytest.fixture(scope="module")
def hidden() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean_ND = torch.randn(9, 32, generator=generator, dtype=torch.float64)
    other_ND = clean_ND + torch.randn(9, 32, generator=generator, dtype=torch.float64)
    return clean_ND, other_ND, torch.randint(300, (9,), generator=generator)


def test_ce_and_kl_are_those_of_torch(model: LanguageModel, hidden: tuple[Tensor, Tensor, Tensor]) -> None:
    """KL is of the clean distribution from the other, KL(clean || other), in nats."""
    clean_ND, other_ND, next_N = hidden
    head = model.module.get_output_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        clean, other = Categorical(logits=head(clean_ND)), Categorical(logits=head(other_ND))
    sums = accumulated(model, clean_ND, other_ND, next_N)
    kl_N = kl_divergence(clean, other)
    for sequence in (0, 1):
        own = slice(sequence, None, 2)
        expected = -other.log_prob(next_N)[own].sum().item()
        assert sums["other"].ce_R[sequence].item() == pytest.approx(expected, rel=1e-12)
        assert sums["other"].kl_R[sequence].item() == pytest.approx(kl_N[own].sum().item(), rel=1e-10)
        expected = -clean.log_prob(next_N)[own].sum().item()
        assert sums["clean"].ce_R[sequence].item() == pytest.approx(expected, rel=1e-12)
    reverse = kl_divergence(other, clean).sum().item()
    assert abs(sums["other"].kl_R.sum().item() - reverse) > 0.01  # so that the direction shows
    assert sums["clean"].kl_R.tolist() == [0.0, 0.0]


def test_kl_of_a_certain_distribution_is_finite(model: LanguageModel, hidden: tuple[Tensor, Tensor, Tensor]) -> None:
    """Logits in the thousands: log(softmax) would underflow to -inf."""
    clean_ND, other_ND, next_N = hidden
    sums = accumulated(model, 1000 * clean_ND, 1000 * other_ND, next_N)
    assert sums["other"].kl_R.isfinite().all()
    assert (sums["other"].kl_R > 0).all()


@pytest.mark.parametrize(("positions", "tokens"), [(1, 300), (4, 299), (5, 7), (9, 1)])
def test_tiles_change_nothing(
    model: LanguageModel,
    hidden: tuple[Tensor, Tensor, Tensor],
    positions: int,
    tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = accumulated(model, *hidden)
    monkeypatch.setitem(constants.TILE_POSITIONS, "cpu", positions)
    monkeypatch.setitem(constants.ROW_LOGITS, "cpu", positions * 300)
    monkeypatch.setitem(constants.TILE_TOKENS, "cpu", tokens)
    pieces = accumulated(model, *hidden)
    for name, one in whole.items():
        assert pieces[name].ce_R.tolist() == pytest.approx(one.ce_R.tolist(), rel=1e-12)
        assert pieces[name].kl_R.tolist() == pytest.approx(one.kl_R.tolist(), rel=1e-12)


def test_no_target_adds_nothing(model: LanguageModel, hidden: tuple[Tensor, Tensor, Tensor]) -> None:
    clean_ND, other_ND, next_N = (tensor[:0] for tensor in hidden)
    assert accumulated(model, clean_ND, other_ND, next_N)["other"].ce_R.tolist() == [0.0, 0.0]
