from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sae_sweep.activations.toy import ToyStream
from sae_sweep.config.schema import MemberConfig
from sae_sweep.evaluation.evaluator import Evaluation, SplicedSae
from sae_sweep.evaluation.recovery import best_cosines, mmcs, recovery_metrics
from sae_sweep.evaluation.toy import ToyEvaluator
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae
from tests.plan.test_plan import config


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values)


def test_mmcs_is_not_symmetric() -> None:
    """Two latents of one direction both have a partner; the direction opposite has none."""
    twice, opposite = rows([1.0], [1.0]), rows([1.0], [-1.0])
    assert mmcs(twice, opposite) == 1
    assert mmcs(opposite, twice) == 0


def test_mmcs_by_hand() -> None:
    learned = rows([2.0, 0.0], [0.0, 3.0])  # norms do not count
    truth = rows([1.0, 0.0], [3.0, 4.0], [-1.0, 0.0])
    assert best_cosines(truth, learned).tolist() == pytest.approx([1.0, 0.8, 0.0])
    assert mmcs(truth, learned) == pytest.approx(0.6)
    assert mmcs(learned, truth) == pytest.approx((1.0 + 0.8) / 2)


def test_a_row_of_zeros_is_near_nothing() -> None:
    assert best_cosines(rows([0.0, 0.0], [1.0, 0.0]), rows([1.0, 0.0])).tolist() == [0.0, 1.0]
    assert best_cosines(rows([-1.0, 0.0]), rows([1.0, 0.0], [0.0, 0.0])).tolist() == [0.0]


def test_mmcs_with_nothing_is_undefined() -> None:
    assert mmcs(rows([1.0]), torch.empty(0, 1)) is None
    assert mmcs(torch.empty(0, 1), rows([1.0])) is None


def test_cosines_some_rows_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(23, 5, generator=generator), torch.randn(7, 5, generator=generator)
    whole = best_cosines(first, second)
    monkeypatch.setattr("sae_sweep.evaluation.recovery.COSINE_ELEMENTS", 7 * 4)
    torch.testing.assert_close(
        best_cosines(first, second), whole, rtol=1e-14, atol=0
    )  # a product's last bit depends on its size


def test_only_alive_latents_and_frequent_truths_count() -> None:
    truth = rows([1.0, 0.0], [0.0, 1.0])
    decoder = rows([1.0, 0.0], [0.0, 1.0], [0.6, 0.8])
    first = torch.tensor([True, False])
    alive = torch.tensor([True, False, True])
    assert recovery_metrics(decoder, alive, truth, first) == {
        "mmcs_truth": pytest.approx((1.0 + 0.8) / 2),
        "mmcs_truth_frequent": pytest.approx(1.0),
        "mmcs_latents": pytest.approx((1.0 + 0.8) / 2),
    }
    everything = recovery_metrics(decoder, torch.ones(3, dtype=torch.bool), truth, ~first)
    assert everything["mmcs_truth"] == pytest.approx(1.0)
    assert everything["mmcs_latents"] == pytest.approx((1 + 1 + 0.8) / 3)


def test_without_alive_latents_or_frequent_truths_there_is_no_number() -> None:
    truth, decoder = rows([1.0, 0.0]), rows([1.0, 0.0], [0.0, 1.0])
    none, both = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    undefined = recovery_metrics(decoder, none, truth, torch.tensor([True]))
    assert undefined == {"mmcs_truth": None, "mmcs_truth_frequent": None, "mmcs_latents": None}
    found = recovery_metrics(decoder, both, truth, torch.tensor([False]))
    assert (found["mmcs_truth"], found["mmcs_truth_frequent"]) == (1.0, None)


SMALL = (
    *("data=toy", "data.toy.dimensions=12", "data.toy.latents=8", "data.toy.active=1", "data.toy.decay=1"),
    *("data.context=10", "data.block_rows=10", "evaluation.tokens=995", "training.batch_size=50", "sae.width=9"),
    "training.tokens=1000",
)


def perfect_sae(stream: ToyStream) -> InferenceSae:
    """Reads each true latent by the pseudoinverse of the truth, and has a ninth latent that never fires."""
    truth_GD = stream.truth_GD
    d = truth_GD.shape[1]
    tensors = {
        "W_enc": torch.cat([torch.linalg.pinv(truth_GD), torch.zeros(d, 1)], 1),
        "b_enc": torch.cat([torch.full((8,), -1e-5), torch.tensor([-1.0])]),
        "W_dec": torch.cat([truth_GD, torch.ones(1, d) / d**0.5]),
        "b_dec": torch.zeros(d),
    }
    return InferenceSae(ReluForm(), tensors, subtract_b_dec=False)


def judged(made: MemberConfig, *steps: int) -> list[Evaluation]:
    stream = ToyStream(made.data, torch.float32, torch.device("cpu"))
    sae = perfect_sae(stream)
    saes = [SplicedSae(str(step), "toy", sae, step, 50) for step in steps]
    found = ToyEvaluator(stream, made).evaluate(saes)
    return [found[str(step)] for step in steps]


def test_a_perfect_dictionary_is_judged_perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_sweep.evaluation.toy.FREQUENT_FROM", 100)
    before, after = judged(config(*SMALL), 4, 20)
    metrics = after.metrics
    assert metrics["tokens_evaluated"] == 1000, "rounded up to whole sequences"
    assert metrics["fvu"] == pytest.approx(0, abs=1e-6)
    assert metrics["alive"] == pytest.approx(8 / 9)
    assert metrics["mmcs_truth"] == pytest.approx(1)
    assert metrics["mmcs_latents"] == pytest.approx(1)
    assert metrics["mmcs_truth_frequent"] == pytest.approx(1)
    assert before.metrics["mmcs_truth_frequent"] is None, "in 200 rows no latent fires 100 times"
    assert metrics["l0"] == pytest.approx(1 + 0.35, abs=0.1), "one on average, and a lone one where there was none"
    assert metrics["l0_se"] is not None


def test_held_out_rows_follow_the_dtype_of_the_model() -> None:
    made = config(*SMALL)
    exact = judged(made, 20)[0].metrics["mse"]
    stream = ToyStream(made.data, torch.bfloat16, torch.device("cpu"))
    rounded = ToyEvaluator(stream, replace(made)).evaluate([SplicedSae("a", "toy", perfect_sae(stream), 0, 50)])
    assert rounded["a"].metrics["mse"] != exact
