"""What evaluation costs: passes that are shared, passes that an SAE adds, and blocks that do not run."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.evaluation.heldout import HeldOut
from sae_sweep.evaluation.language_model import LanguageModelEvaluator
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.plan.flops import clean_flops, logit_flops
from sae_sweep.saes.inference import InferenceSae

ROWS_PER_FORWARD = 3
BATCHES = 3  # of 8 rows
HOOKS = ("blocks.2.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.2.attn.hook_z")


def saes_at(hooks: tuple[str, ...], each: int, random_sae: Callable[..., InferenceSae]) -> list[SplicedSae]:
    return [
        SplicedSae(f"{hook} {seed}", hook, random_sae("standard", 32, 16, seed, 1.0))
        for hook in hooks
        for seed in range(each)
    ]


@pytest.fixture
def model(llama_folder: Path, load_float64: Callable[[Path], LanguageModel]) -> LanguageModel:
    return load_float64(llama_folder)


@pytest.fixture
def evaluator(model: LanguageModel, tokens_RT: Tensor) -> LanguageModelEvaluator:
    heldout = HeldOut(tokens_RT, torch.tensor([0, 1, 2]), 1, ROWS_PER_FORWARD, every_position=False)
    return LanguageModelEvaluator([model], heldout, {hook: torch.zeros(32, dtype=torch.float64) for hook in HOOKS})


@pytest.mark.parametrize("sites", [1, 2, 3])
@pytest.mark.parametrize("each", [1, 4])
def test_passes(
    evaluator: LanguageModelEvaluator,
    model: LanguageModel,
    random_sae: Callable[..., InferenceSae],
    sites: int,
    each: int,
) -> None:
    """A batch costs one clean pass, two ablations a site, and one pass for each SAE."""
    evaluator.evaluate(saes_at(HOOKS[:sites], each, random_sae))
    assert model.passes.clean == BATCHES
    assert model.passes.suffix == BATCHES * (2 * sites + sites * each)
    assert model.passes.harvest == 0


@pytest.mark.parametrize("sites", [1, 3])
def test_each_pass_is_told_of(
    evaluator: LanguageModelEvaluator, model: LanguageModel, random_sae: Callable[..., InferenceSae], sites: int
) -> None:
    """After the clean pass, each other one and the logits, by the blocks and logits of each; then that the batch is
    over."""
    told: list[float] = []
    evaluator.evaluate(saes_at(HOOKS[:sites], 4, random_sae), told.append)
    in_a_batch = 1 + (4 + 2) * sites + 1 + 1
    assert [told.index(rows / 8) for rows in (3, 6, 8)] == [in_a_batch * (batch + 1) - 1 for batch in range(BATCHES)]
    assert len(told) == in_a_batch * BATCHES
    assert all(before < after for before, after in pairwise(told))
    layers, tokens = model.facts.n_layers, evaluator.tokens_RT.shape[1]
    block, logits = clean_flops(model.facts, tokens) / layers, logit_flops(model.facts)
    blocks_after = {"blocks.2.hook_resid_post": layers - 3, "blocks.1.hook_mlp_out": layers - 2, HOOKS[2]: layers - 2}
    suffixes = 6 * block * sum(blocks_after[hook] for hook in HOOKS[:sites])
    whole = layers * block + suffixes + (1 + 6 * sites) * logits
    assert told[0] == pytest.approx(3 / 8 * layers * block / whole)
    assert told[in_a_batch - 3] == pytest.approx(3 / 8 * (layers * block + suffixes) / whole)


@contextmanager
def runs(model: LanguageModel, part: str) -> Iterator[list[int]]:
    """How often the layer called `part` ran in each block: a layer inside, for a skipped block is called too."""
    counts = [0] * model.facts.n_layers

    def count(layer: int) -> Callable[..., None]:
        def ran(*_: object) -> None:
            counts[layer] += 1

        return ran

    with ExitStack() as stack:
        for layer in range(model.facts.n_layers):
            module = model.module.get_submodule(f"model.layers.{layer}.{part}")
            stack.enter_context(module.register_forward_hook(count(layer)))
        yield counts


@pytest.mark.parametrize(
    ("hook", "attention_runs", "mlp_runs"),
    [
        ("blocks.2.hook_resid_post", (0, 0, 0, 1), (0, 0, 0, 1)),
        ("blocks.1.hook_mlp_out", (0, 0, 1, 1), (0, 0, 1, 1)),
        ("blocks.2.attn.hook_z", (0, 0, 0, 1), (0, 0, 1, 1)),
    ],
)
def test_what_comes_before_the_site_does_not_run(
    evaluator: LanguageModelEvaluator,
    model: LanguageModel,
    random_sae: Callable[..., InferenceSae],
    hook: str,
    attention_runs: tuple[int, ...],
    mlp_runs: tuple[int, ...],
) -> None:
    """By block, what runs in a suffix pass: nothing before the site, everything after it."""
    saes = saes_at((hook,), 3, random_sae)
    with runs(model, "self_attn.q_proj") as attention, runs(model, "mlp.up_proj") as mlp:
        evaluator.evaluate(saes)
    suffixes = 2 + len(saes)
    assert attention == [BATCHES * (1 + suffixes * ran) for ran in attention_runs]
    assert mlp == [BATCHES * (1 + suffixes * ran) for ran in mlp_runs]


def test_candidates_of_several_places_have_their_metrics_in_any_company_and_batches(
    model: LanguageModel, tokens_RT: Tensor, random_sae: Callable[..., InferenceSae]
) -> None:
    """A transcoder and a crosscoder beside an autoencoder: a pass for each hook, and what it reads in every batch."""
    reads, writes, across = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out", HOOKS[:2]
    saes = [
        SplicedSae("transcoder", writes, replace(random_sae("standard", 32, 16, 1, 1.0), transcodes=True), reads=reads),
        SplicedSae("crosscoder", across[0], replace(random_sae("topk", 64, 16, 2, 1.0), sites=2), beside=(across[1],)),
        SplicedSae("autoencoder", writes, random_sae("standard", 32, 16, 3, 1.0)),
    ]
    means = {hook: torch.zeros(32, dtype=torch.float64) for hook in across}
    heldout = HeldOut(tokens_RT, torch.tensor([0, 1, 2]), 1, 2, every_position=False)
    watched = "blocks.3.hook_resid_post"
    saes = [replace(spliced, watched=(watched,)) for spliced in saes]
    evaluator = LanguageModelEvaluator([model], heldout, means, [reads, watched])
    together = evaluator.evaluate(saes)
    assert model.passes.suffix == 4 * (2 * 2 + 1 + 2 + 1)
    smaller = evaluator.in_smaller_batches()
    assert smaller is not None
    for spliced in saes:
        own = together[spliced.label].metrics
        assert evaluator.evaluate([spliced])[spliced.label].metrics == own
        assert smaller.evaluate([spliced])[spliced.label].metrics == pytest.approx(own, rel=1e-9)


def test_company_changes_nothing(evaluator: LanguageModelEvaluator, random_sae: Callable[..., InferenceSae]) -> None:
    """An SAE evaluated among others has the metrics it has alone, to the last bit."""
    saes = saes_at(HOOKS, 2, random_sae)
    together = evaluator.evaluate(saes)
    for spliced in saes:
        assert evaluator.evaluate([spliced])[spliced.label].metrics == together[spliced.label].metrics
