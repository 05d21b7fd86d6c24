"""Metrics of the evaluator against `definitions.py`, which recomputes them with full forwards from what they mean."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_sweep.evaluation.evaluator import Evaluation, SplicedSae
from sae_sweep.evaluation.heldout import HeldOut
from sae_sweep.evaluation.language_model import LanguageModelEvaluator
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae
from tests.evaluation.definitions import HOOKS, Metrics, PlainModel, PlainSae, Question, recomputed

EOS, BOS, PAD = 0, 1, 2
LAYER = 1  # of four
WIDTH = 48
KINDS = ("resid_post", "mlp_out", "attn_z")
WATCHED = {
    "resid_post": {2: "blocks.2.hook_resid_post", 3: "blocks.3.hook_resid_post"},
    "mlp_out": {1: "blocks.2.hook_resid_pre", 2: "blocks.3.hook_resid_pre"},
    "attn_z": {2: "blocks.3.hook_resid_pre"},
}
"""The hooks watched for a kind of site, by the block that ends there."""
READ = tuple(hook for hooks in WATCHED.values() for hook in hooks.values())
ARCHITECTURES = ("standard", "gated", "topk", "jumprelu", "no b_dec")

KEYS = {
    *("l0", "l1", "mse", "fvu", "explained_variance", "cosine", "gamma", "alive", "density_over_1pct"),
    *("density_over_10pct", "l0_se", "ce_clean", "ce_sae", "ce_zero", "ce_mean", "ce_delta", "ce_recovered"),
    *("ce_recovered_mean", "ce_recovered_se", "kl", "kl_zero", "later_fvu", "tokens_evaluated", "outlier_fraction"),
}


@dataclass(frozen=True)
class Judged:
    """One model's SAEs, judged together by the evaluator."""

    plain: PlainModel
    saes: dict[str, SplicedSae]
    means: dict[str, Tensor]
    evaluations: dict[str, Evaluation]
    every_position: bool
    largest_norms: dict[str, float]

    def expected(self, label: str, kind: str, tokens_RT: Tensor) -> Metrics:
        spliced = self.saes[label]
        sae = spliced.sae
        question = Question(
            *(kind, LAYER, tokens_RT, {EOS, BOS, PAD}, BOS, self.means[spliced.hook], self.every_position),
            ends=tuple(WATCHED[kind]),
            largest=self.largest_norms.get(spliced.hook, float("inf")),
        )
        return recomputed(
            self.plain,
            PlainSae(sae.form.saelens, sae.tensors, sae.subtract_b_dec, getattr(sae.form, "k", None)),
            question,
        )


def label_of(kind: str, architecture: str) -> str:
    return f"{kind} {architecture}"


def make_saes(
    plain: PlainModel, random_sae: Callable[..., InferenceSae], tokens_RT: Tensor
) -> tuple[dict[str, SplicedSae], dict[str, Tensor]]:
    saes, means = {}, {}
    for kind in KINDS:
        hook = HOOKS[kind].format(layer=LAYER)
        x_TD = plain.activation(kind, LAYER, tokens_RT[0])
        scale = x_TD[1:].std().item()
        means[hook] = x_TD[1:].mean(0)
        for seed, architecture in enumerate(ARCHITECTURES):
            name = "standard" if architecture == "no b_dec" else architecture
            sae = random_sae(name, x_TD.shape[1], WIDTH, seed, scale, subtract=architecture != "no b_dec")
            label = label_of(kind, architecture)
            saes[label] = SplicedSae(label, hook, sae, watched=tuple(WATCHED[kind].values()))
    return saes, means


@pytest.fixture(
    scope="module",
    params=[("gpt2", False, 0), ("llama", True, 1.1), ("gpt2", False, 1.1)],
    ids=["gpt2-counted", "llama-all-guarded", "gpt2-counted-guarded"],
)
def judged(
    request: pytest.FixtureRequest,
    load_float64: Callable[[Path], LanguageModel],
    random_sae: Callable[..., InferenceSae],
    tokens_RT: Tensor,
) -> Judged:
    family, every_position, ratio = request.param
    folder = request.getfixturevalue(f"{family}_folder")
    plain = PlainModel(family, folder)
    saes, means = make_saes(plain, random_sae, tokens_RT)
    # Sites that leave outliers out, each its own, beside one that does not.
    largest = {
        HOOKS[kind].format(layer=LAYER): ratio
        * plain.activation(kind, LAYER, tokens_RT[0])[1:].norm(dim=1).median().item()
        for kind in KINDS[:2]
        if ratio
    }
    heldout = HeldOut(tokens_RT, torch.tensor([EOS, BOS, PAD]), BOS, 3, every_position, largest)  # rows: 3, 3 and 2
    evaluations = LanguageModelEvaluator([load_float64(folder)], heldout, means, READ).evaluate(list(saes.values()))
    return Judged(plain, saes, means, evaluations, every_position, largest)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_as_defined(judged: Judged, kind: str, architecture: str, tokens_RT: Tensor) -> None:
    label = label_of(kind, architecture)
    found = judged.evaluations[label].metrics
    expected = judged.expected(label, kind, tokens_RT)
    assert set(found) == set(expected) == KEYS
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert expected["l0"] not in (0, WIDTH)  # or the codes would prove nothing
    assert (expected["outlier_fraction"] > 0) is (judged.saes[label].hook in judged.largest_norms)


def test_frequencies_are_shares_of_counted_tokens(judged: Judged, tokens_RT: Tensor) -> None:
    label = label_of("resid_post", "gated")
    sae = judged.saes[label].sae
    special = torch.tensor([EOS, BOS, PAD])
    fired_F = torch.zeros(WIDTH, dtype=torch.float64)
    tokens = 0
    for row_T in tokens_RT:
        x_TD = judged.plain.activation("resid_post", LAYER, row_T)
        own = ~torch.isin(row_T, special)
        own[0] = False
        own &= x_TD.norm(dim=1) <= judged.largest_norms.get(judged.saes[label].hook, torch.inf)
        fired_F += (PlainSae("gated", sae.tensors, True, None).encode(x_TD[own]) > 0).sum(0)
        tokens += int(own.sum())
    assert torch.equal(judged.evaluations[label].frequency_F, fired_F / tokens)


def test_the_two_policies_differ_where_they_should(
    gpt2_folder: Path,
    load_float64: Callable[[Path], LanguageModel],
    random_sae: Callable[..., InferenceSae],
    tokens_RT: Tensor,
) -> None:
    """Splicing every position changes what the model loses, and never what is averaged over."""
    saes, means = make_saes(PlainModel("gpt2", gpt2_folder), random_sae, tokens_RT)
    model = load_float64(gpt2_folder)
    special = torch.tensor([EOS, BOS, PAD])
    label = label_of("resid_post", "standard")
    counted, every = (
        LanguageModelEvaluator([model], HeldOut(tokens_RT, special, BOS, 4, every_position), means, READ)
        .evaluate([saes[label]])[label]
        .metrics
        for every_position in (False, True)
    )
    spliced = {key for key in KEYS if key.startswith(("ce_", "kl", "later_"))} - {"ce_clean"}
    assert all(counted[key] != every[key] for key in spliced)
    assert {key: counted[key] for key in KEYS - spliced} == pytest.approx(
        {key: every[key] for key in KEYS - spliced}, rel=1e-12
    )


@pytest.mark.parametrize("rows_per_forward", [1, 100])
def test_batches_change_nothing(
    judged: Judged,
    rows_per_forward: int,
    request: pytest.FixtureRequest,
    load_float64: Callable[[Path], LanguageModel],
    tokens_RT: Tensor,
) -> None:
    family = request.node.callspec.params["judged"][0]
    model = load_float64(request.getfixturevalue(f"{family}_folder"))
    heldout = HeldOut(
        tokens_RT, torch.tensor([EOS, BOS, PAD]), BOS, rows_per_forward, judged.every_position, judged.largest_norms
    )
    again = LanguageModelEvaluator([model], heldout, judged.means, READ).evaluate(list(judged.saes.values()))
    for label, evaluation in judged.evaluations.items():
        assert again[label].metrics == pytest.approx(evaluation.metrics, rel=1e-9, abs=1e-12)


def test_a_perfect_sae_loses_nothing(
    llama_folder: Path, load_float64: Callable[[Path], LanguageModel], tokens_RT: Tensor
) -> None:
    """W = [I, -I] with ReLU on both sides is the identity."""
    eye = torch.eye(32, dtype=torch.float64)
    tensors = {
        "W_enc": torch.cat([eye, -eye], dim=1),
        "b_enc": torch.zeros(64, dtype=torch.float64),
        "W_dec": torch.cat([eye, -eye]),
        "b_dec": torch.zeros(32, dtype=torch.float64),
    }
    hook = "blocks.2.hook_resid_post"
    heldout = HeldOut(tokens_RT, torch.tensor([EOS, BOS, PAD]), BOS, 4, every_position=False)
    ones = {hook: torch.ones(32, dtype=torch.float64)}
    evaluator = LanguageModelEvaluator([load_float64(llama_folder)], heldout, ones)
    metrics = evaluator.evaluate([SplicedSae("identity", hook, InferenceSae(ReluForm(), tensors, False))])["identity"]
    expected = {
        **dict.fromkeys(("mse", "fvu", "ce_delta", "kl"), 0.0),
        **dict.fromkeys(("explained_variance", "cosine", "gamma", "ce_recovered", "ce_recovered_mean"), 1.0),
        "l0": 32.0,
    }
    assert {key: metrics.metrics[key] for key in expected} == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_an_sae_that_is_zero_is_zero_ablation(
    gpt2_folder: Path, load_float64: Callable[[Path], LanguageModel], tokens_RT: Tensor
) -> None:
    """Recovers exactly none of the cross-entropy, about zero; and about the mean, the mean itself recovers none."""
    hook = "blocks.1.hook_mlp_out"
    mean_D = torch.linspace(-1, 1, 32, dtype=torch.float64)
    heldout = HeldOut(tokens_RT, torch.tensor([EOS, BOS, PAD]), BOS, 4, every_position=False)
    evaluator = LanguageModelEvaluator([load_float64(gpt2_folder)], heldout, {hook: mean_D})

    def dead(b_dec: Tensor) -> InferenceSae:
        never = torch.full((4,), -1.0, dtype=torch.float64)
        zeros = torch.zeros(32, 4, dtype=torch.float64)
        tensors = {"W_enc": zeros, "b_enc": never, "W_dec": torch.eye(4, 32, dtype=torch.float64), "b_dec": b_dec}
        return InferenceSae(ReluForm(), tensors, False)

    saes = [SplicedSae("zero", hook, dead(torch.zeros_like(mean_D))), SplicedSae("mean", hook, dead(mean_D))]
    judged = evaluator.evaluate(saes)
    zero, mean = judged["zero"].metrics, judged["mean"].metrics
    assert (zero["l0"], zero["l1"], zero["alive"], zero["cosine"]) == (0.0, 0.0, 0.0, 0.0)
    assert zero["later_fvu"] is None  # nobody asked
    assert zero["gamma"] is None  # no scaling of nothing is better than another
    assert zero["ce_sae"] == zero["ce_zero"]
    assert zero["kl"] == zero["kl_zero"]
    assert zero["ce_recovered"] == 0.0
    assert mean["ce_sae"] == mean["ce_mean"]
    assert mean["ce_recovered_mean"] == 0.0


def test_topk_is_tested_where_some_of_the_k_are_negative(judged: Judged) -> None:
    """Or nothing would tell whether they count; k is 5."""
    for kind in KINDS:
        l0 = judged.evaluations[label_of(kind, "topk")].metrics["l0"]
        assert l0 is not None
        assert 0.5 < l0 < 4.5
