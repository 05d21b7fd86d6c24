"""A group trained for real, then metrics.json against a recomputation from the files it left, in float64."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sae_sweep.data.tokens import open_tokens
from sae_sweep.training.run.opening import open_group
from sae_sweep.training.run.sources import LanguageModelSource
from tests.evaluation.definitions import Metrics, PlainModel, Question, counted, recomputed
from tests.evaluation.groups import Planned, planned, small
from tests.evaluation.saved import NEAR, magnitude, margins, read_sae

EOS, BOS, PAD = 0, 1, 2
LAYER = 2
CONTEXT, BLOCK_ROWS, BATCH, STEPS = 16, 32, 48, 240

KEYS = {
    *("l0", "l1", "mse", "fvu", "explained_variance", "cosine", "gamma", "ce_clean", "ce_sae", "ce_zero", "ce_mean"),
    *("ce_delta", "ce_recovered", "ce_recovered_mean", "kl", "kl_zero", "dead_fraction", "dead_window_tokens", "alive"),
    *(
        "density_over_1pct",
        "density_over_10pct",
        "l0_se",
        "ce_recovered_se",
        "coefficient_final",
        "threshold_mode",
        "l0_untrimmed",
        "later_fvu",
        "ce_recovered_first",
        "ce_recovered_second",
        "fvu_first",
        "fvu_second",
    ),
    *(
        "version",
        "outlier_fraction",
        "tokens_trained",
        "tokens_evaluated",
        "mmcs_truth",
        "mmcs_truth_frequent",
        "mmcs_latents",
    ),
}
"""The closed list, the same for every architecture."""

MEMBERS = {
    "standard": ("sae=standard", "sae.l1=0.5"),
    "april": ("sae=standard_april", "sae.l1=1"),  # trained on scaled inputs, with a free decoder
    "gated": ("sae=gated", "sae.l1=0.5", "sae.input_scale=unit"),
    "topk": ("sae=topk", "sae.k=5", "sae.input_scale=sqrt_d"),
    "earlier": ("sae=gated", "sae.l0=6", f"site.layer={LAYER - 1}"),
}


@dataclass(frozen=True)
class Trained:
    """A finished group, by the names in MEMBERS."""

    planned: Planned
    harvests: int
    model_folder: Path

    def saved(self, name: str) -> Path:
        return self.planned.member_folder(name)

    def metrics(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.saved(name) / "metrics.json").read_text())
        return found


@pytest.fixture(scope="module")
def train(llama_folder: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trained]:
    def run(*names: str) -> Trained:
        shared = [
            *small(tmp_path_factory.mktemp("outputs"), llama_folder, text_file),
            *(f"site.layer={LAYER}", f"training.batch_size={BATCH}", f"training.tokens={BATCH * STEPS}"),
            *("training.lr=2e-3", "training.lr_warmup_steps=10", "evaluation.later_sites=1"),
        ]
        made = planned(shared, {name: MEMBERS[name] for name in names})
        opened = open_group(made.group)
        results = opened.run(made.folder)
        assert {label: result.reason for label, result in results.items()} == {made.label(name): None for name in names}
        assert isinstance(opened.source, LanguageModelSource)
        return Trained(made, opened.source.model.passes.harvest, llama_folder)

    return run


@pytest.fixture(scope="module")
def trained(train: Callable[..., Trained]) -> Trained:
    return train(*MEMBERS)


@dataclass(frozen=True)
class Recomputation:
    """What the saved files say, judged anew."""

    metrics: Metrics
    undecided: float
    """Entries per token on which float32 and float64 may disagree."""
    frequency_F: Tensor


@pytest.fixture(scope="module")
def recompute(trained: Trained) -> Callable[[str], Recomputation]:
    model = PlainModel("llama", trained.model_folder)
    config = trained.planned.configs["standard"]
    tokens = open_tokens(config.data, config.evaluation.tokens, _tokenizer(trained.model_folder), 300)
    heldout_RT = torch.from_numpy(tokens.heldout).long()
    first_RT = torch.from_numpy(tokens.training.block(0)[0]).long()

    def activations(layer: int, tokens_RT: Tensor) -> Tensor:
        rows = [
            model.activation("resid_post", layer, row_T)[counted(row_T.tolist(), {EOS, BOS, PAD}, BOS)]
            for row_T in tokens_RT
        ]
        return torch.cat(rows)

    @cache
    def recompute(name: str) -> Recomputation:
        layer = LAYER - 1 if name == "earlier" else LAYER
        sae = read_sae(trained.saved(name))
        mean_D = activations(layer, first_RT).mean(0)
        question = Question("resid_post", layer, heldout_RT, {EOS, BOS, PAD}, BOS, mean_D, False, (layer + 1,))
        x_ND = activations(layer, heldout_RT)
        fires_NF = sae.encode(x_ND) > 0
        undecided = margins(sae, x_ND).lt(NEAR * x_ND.norm(dim=1, keepdim=True)).sum().item() / len(x_ND)
        return Recomputation(recomputed(model, sae, question), undecided, fires_NF.double().mean(0))

    return recompute


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("name", MEMBERS)
def test_metrics_are_those_of_the_saved_files(
    trained: Trained, recompute: Callable[[str], Recomputation], name: str
) -> None:
    found = trained.metrics(name)
    again = recompute(name)
    tolerance = 1e-5 + again.undecided
    for key, expected in again.metrics.items():
        assert expected is not None
        error = tolerance * magnitude(key, expected, again.metrics)
        assert found[key] == pytest.approx(expected, rel=0, abs=error), key


@pytest.mark.parametrize("name", MEMBERS)
def test_every_key_is_there_and_no_other(trained: Trained, name: str) -> None:
    found = trained.metrics(name)
    assert set(found) == KEYS
    assert found["tokens_trained"] == BATCH * STEPS
    assert found["dead_window_tokens"] == BATCH * STEPS // 4
    assert found["threshold_mode"] == ("quantile" if name == "earlier" else None)  # the one with a target L0
    assert (found["l0_untrimmed"] is not None) == (name == "earlier")
    assert 0 <= found["dead_fraction"] <= 1
    for key, value in found.items():
        assert value is None or isinstance(value, str if key == "threshold_mode" else int | float), key


def test_coefficients(trained: Trained) -> None:
    """In the config's unit, as given; what steering arrived at; none where there is none."""
    final = {name: trained.metrics(name)["coefficient_final"] for name in MEMBERS}
    assert (final["standard"], final["april"], final["gated"]) == pytest.approx((0.5, 1.0, 0.5), rel=1e-6)
    assert final["earlier"] > 0
    assert final["topk"] is None


def test_training_has_done_something(trained: Trained) -> None:
    """Else little would be compared: every member is better than the mean, and none is dense or empty."""
    for name in MEMBERS:
        metrics = trained.metrics(name)
        assert 0.5 < metrics["l0"] < 30
        assert metrics["fvu"] < 1


@pytest.mark.parametrize("name", MEMBERS)
def test_saved_sparsity_is_that_of_the_heldout_tokens(
    trained: Trained, recompute: Callable[[str], Recomputation], name: str
) -> None:
    saved_F = load_file(trained.saved(name) / "sparsity.safetensors")["sparsity"]
    again = recompute(name)
    if again.undecided == 0:
        torch.testing.assert_close(saved_F.double(), torch.log10(again.frequency_F + 1e-10), rtol=1e-6, atol=0)


def test_training_runs_the_model_once_for_all(trained: Trained, train: Callable[..., Trained]) -> None:
    """Forward passes follow from the tokens: five members of three architectures at two sites cost what one does.

    A target L0 takes one block more, for its last correction.
    """
    assert train("earlier").harvests == trained.harvests
    assert train("topk").harvests == trained.harvests - 2


def test_training_runs_the_model_once_per_block(trained: Trained) -> None:
    """Two forwards of 16 rows a block; blocks of 32 rows x at most 15 counted tokens; one for the last correction."""
    batches = BLOCK_ROWS * (CONTEXT - 1) // BATCH
    least = 2 * (STEPS // batches + 1)
    assert least <= trained.harvests <= 1.3 * least


@pytest.mark.parametrize("name", ["gated", "earlier"])
def test_rows_add_up_to_the_metrics(trained: Trained, name: str) -> None:
    sums = {key: R.sum().item() for key, R in load_file(trained.saved(name) / "rows.safetensors").items()}
    metrics = trained.metrics(name)
    assert sums["tokens"] == metrics["tokens_evaluated"]
    for key, numerator, denominator in (
        *(("l0", "l0", "tokens"), ("mse", "squared_error", "tokens"), ("ce_sae", "ce", "targets")),
        *(("kl", "kl", "targets"), ("ce_clean", "ce_clean", "targets"), ("ce_zero", "ce_zero", "targets")),
    ):
        assert sums[numerator] / sums[denominator] == pytest.approx(metrics[key], rel=1e-9)
