"""The facts of each architecture: knobs, recipes, shapes, what it refuses."""

from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
import torch

from sae_sweep.architectures.base import ARCHITECTURES, SaeConfig
from sae_sweep.architectures.maths import maths_of
from sae_sweep.architectures.recipe import Run
from sae_sweep.errors import ConfigError
from sae_sweep.saes.base import SaeMaths
from sae_sweep.saes.initial import Start
from tests.architectures.options import KNOBS, WIDTH, D, config, member


def run(width: int) -> Run:
    """Which the papers' recipes know the width of."""
    return Run(1_000, 64, D, width)


ALL: dict[str, Any] = {option: config(option) for option in KNOBS}
STANDARD, GATED, TOPK, JUMPRELU = ALL["standard"], ALL["gated"], ALL["topk"], ALL["jumprelu"]


def test_every_architecture_is_here() -> None:
    assert {made.architecture for made in ALL.values()} == ARCHITECTURES.keys()
    for made in ALL.values():
        assert type(made) is ARCHITECTURES[made.architecture].Config
        assert isinstance(maths_of(made), SaeMaths)


def test_each_file_has_a_method_of_its_own() -> None:
    methods = [made.method() for made in ALL.values()]
    assert methods == list(KNOBS)
    tokenized = {replace(made, lookup=lookup).method() for made in ALL.values() for lookup in ("learned", "frozen")}
    assert len(tokenized | set(methods)) == 3 * len(methods)


@pytest.mark.parametrize("option", KNOBS)
def test_what_it_says_of_its_parameters_is_what_it_trains(option: str) -> None:
    inputs_ND = torch.randn(256, D, generator=torch.Generator().manual_seed(0))
    made, start = ALL[option], Start(inputs_ND, inputs_ND.mean(0))
    initial = maths_of(made).initialise(made, start, WIDTH, torch.Generator().manual_seed(0))
    assert {name: tuple(tensor.shape) for name, tensor in initial.items()} == made.parameters(D, WIDTH)


@pytest.mark.parametrize(("config", "knob"), [(ALL[option], next(iter(knob))) for option, knob in KNOBS.items()])
def test_knob_is_a_field(config: SaeConfig, knob: str) -> None:
    assert config.knob() == knob
    assert getattr(config, knob) is not None


RECIPES: dict[str, dict[str, Any]] = {
    "standard": {"lr": 1e-3, "resample_every": 25_000, "clip": 0.0},
    "standard_april": {"lr": 5e-5, "clip": 1.0, "lr_decay_fraction": 0.2, "sparsity_warmup_steps": 10_000},
    "p_anneal": {"lr": 3e-4, "sparsity_warmup_steps": 5_000, "lr_decay_fraction": 0.2, "resample_every": 25_000},
    "gated": {"lr": 3e-4, "beta1": 0.0, "beta2": 0.999, "resample_every": 25_000, "lr_warmup_steps": 1_000},
    "gated_decoder_norm": {"lr": 3e-4, "beta1": 0.0, "sparsity_warmup_steps": 10_000, "resample_every": 0},
    "jumprelu": {"lr": 7e-5, "beta1": 0.0, "sparsity_warmup_steps": 10_000, "resample_every": 0},
    "jumprelu_anthropic": {"lr": 2e-4, "clip": 1.0, "lr_decay_fraction": 0.2, "sparsity_warmup_fraction": 1.0},
    "topk": {"lr": 2e-4, "eps": 6.25e-10, "resample_every": 0},
    "batchtopk": {"lr": 3e-4, "beta1": 0.9, "beta2": 0.99},
    "matryoshka": {"lr": 3e-4, "beta1": 0.9, "beta2": 0.999, "clip": 1.0, "lr_decay_fraction": 0.2},
    "hierarchical_topk": {"lr": 2e-4, "eps": 6.25e-10, "resample_every": 0},
    "ortsae": {"lr": 2e-4, "beta1": 0.9, "beta2": 0.99, "clip": 0.0},
    "temporal": {"lr": 3e-4, "beta1": 0.9, "beta2": 0.999, "clip": 1.0, "lr_decay_fraction": 0.0},
    "jumprelu_gemma_scope_2": {"lr": 7e-5, "beta1": 0.0, "sparsity_warmup_steps": 10_000, "resample_every": 0},
}


@pytest.mark.parametrize("option", KNOBS)
def test_recipes_of_the_papers(option: str) -> None:
    recipe = config(f"{option}_paper").training_recipe(run(2**14))
    assert {key: getattr(recipe, key) for key in RECIPES[option]} == RECIPES[option]


@pytest.mark.parametrize(
    ("option", "warmup"), [("standard", 10_000), ("gated", 10_000), ("p_anneal", 5_000), ("jumprelu_anthropic", 0)]
)
def test_biases_keep_up_with_weights_in_the_shipped_recipe_alone(option: str, warmup: int) -> None:
    """A unit row's d numbers are of size 1 / sqrt(d), a bias is of size 1. Gradients are clipped, and a penalty
    comes in slowly; a warm-up that a paper has stays."""
    large = replace(ALL[option], input_scale="sqrt_d")
    found = {name: replace(large, recipe=name).training_recipe(run(WIDTH)) for name in ("balanced", "tuned")}
    expected = replace(found["tuned"], bias_lr=run(WIDTH).d ** 0.5, sparsity_warmup_steps=warmup, clip=1.0)
    assert found["balanced"] == expected
    unit = replace(ALL[option], recipe="balanced", input_scale="unit")
    assert unit.training_recipe(run(WIDTH)) == found["tuned"], "biases are of the size of a row's numbers"
    assert found["tuned"].bias_lr == replace(ALL[option], recipe="paper").training_recipe(run(WIDTH)).bias_lr == 1.0


@pytest.mark.parametrize("option", ["matryoshka", "ortsae", "temporal"])
def test_what_is_built_on_batchtopk_is_shipped_with_its_recipe(option: str) -> None:
    assert ALL[option].training_recipe(run(WIDTH)) == ALL["batchtopk"].training_recipe(run(WIDTH))


def test_the_coefficients_of_the_papers() -> None:
    """gamma is 0.25 over chunks of 8,192 (2509.22033, section 4.1); alpha is 1 for the sum of both directions, of which
    `contrast` weighs the mean, and a fifth of the latents are high-level (2511.05541, section 4.1)."""
    made: dict[str, Any] = {
        name: member(f"{name}_paper", k=8).sae for name in ("hierarchical_topk", "matryoshka", "ortsae", "temporal")
    }
    orthogonal, temporal = made["ortsae"], made["temporal"]
    assert (orthogonal.orthogonality, orthogonal.orthogonality_chunk) == (0.25, 8192)
    assert (temporal.contrast / 2, temporal.high_share) == (1.0, 0.2)
    assert made["hierarchical_topk"].budgets == "all"
    assert made["matryoshka"].fixed_sizes(65536) == [2048, 6144, 14336, 30720]
    assert {one.auxk_coefficient for one in made.values()} == {1 / 32}


def test_a_target_falls_for_a_quarter_of_the_run() -> None:
    recipe = replace(JUMPRELU, l0_coefficient=None, l0=8.0).paper_recipe(run(WIDTH))
    assert (recipe.sparsity_warmup_fraction, recipe.sparsity_warmup_steps, recipe.lr) == (0.25, 0, 7e-5)


def test_the_lr_of_topk_falls_with_width() -> None:
    assert TOPK.paper_recipe(run(2**18)).lr == pytest.approx(2e-4 / 4)


@pytest.mark.parametrize("option", [option for option, made in ALL.items() if hasattr(made, "resample")])
def test_resampling_can_be_left_out_or_asked_for(option: str) -> None:
    every = {
        flag: replace(ALL[option], resample=flag).paper_recipe(run(WIDTH)).resample_every for flag in (False, True)
    }
    assert every == {False: 0, True: 25_000}


@pytest.mark.parametrize(("d", "expected"), [(512, 256), (768, 512), (1024, 512), (1280, 512), (2, 2), (64, 32)])
def test_auxk_is_the_power_of_two_nearest_half_of_d(d: int, expected: int) -> None:
    found = TOPK.auxk_latents(d)
    assert found & (found - 1) == 0
    assert 1 / sqrt(2) <= found / (max(d, 4) / 2) <= sqrt(2)
    assert found == expected
    assert replace(TOPK, auxk=5).auxk_latents(d) == 5


@pytest.mark.parametrize("option", ["topk", "batchtopk", "matryoshka", "hierarchical_topk", "ortsae", "temporal"])
def test_k_or_l0(option: str) -> None:
    made = ALL[option]
    assert made.active() == 8
    assert replace(made, k=None, l0=12.0).active() == 12
    assert replace(made, k=None, l0=12.0).active() == 12


def test_a_penalty_left_out_is_the_one_that_fits() -> None:
    anthropic = ALL["jumprelu_anthropic"]
    assert JUMPRELU.chosen_penalty == "l0"
    assert replace(JUMPRELU, l0_coefficient=None, l0=8.0).chosen_penalty == "target_l0"
    assert anthropic.chosen_penalty == replace(anthropic, l0_coefficient=None, l0=8.0).chosen_penalty == "tanh"


@pytest.mark.parametrize("option", KNOBS)
def test_a_coefficient_is_steered_where_only_l0_is_given(option: str) -> None:
    coefficient = replace(ALL[option], **dict.fromkeys(KNOBS[option]), l0=8.0).coefficient()
    if "k" in KNOBS[option]:
        assert coefficient is None
        return
    aimed = option in ("jumprelu", "jumprelu_gemma_scope_2")
    assert coefficient.value == (1.0 if aimed else None), "target_l0 has its target in the loss"
    assert coefficient.degree == (0.0 if option.startswith("jumprelu") else 1.0)


def test_what_an_option_is_called() -> None:
    assert replace(TOPK, groups=3).method() == "topk_matryoshka"
    assert replace(TOPK, groups=3, prefixes="sampled").method() == "topk_matryoshka_sampled"
    assert replace(ALL["standard_april"], groups=3).method() == "standard_april_matryoshka"
    assert replace(JUMPRELU, groups=3, free_decoder=True).method() == "jumprelu_matryoshka_free_decoder"
    assert replace(JUMPRELU, penalty="quadratic_frequency").method() == "jumprelu_penalty_quadratic_frequency"


@pytest.mark.parametrize(
    ("k", "budgets", "ks"),
    [(8, "powers", [1, 2, 4, 8]), (12, "powers", [1, 2, 4, 8, 12]), (1, "powers", [1]), (3, "all", [1, 2, 3])],
)
def test_the_numbers_of_latents_that_reconstruct(k: int, budgets: str, ks: list[int]) -> None:
    made = replace(ALL["hierarchical_topk"], k=k, budgets=budgets)
    assert (made.ks, made.reconstructions) == (ks, len(ks))


def test_other_penalties_than_target_l0_are_steered() -> None:
    for penalty in ("l0", "frequency"):
        assert replace(JUMPRELU, l0_coefficient=None, l0=8.0, penalty=penalty).coefficient().value is None


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (GATED, replace(GATED, l1=5.0, width=8), True),
        (GATED, replace(GATED, l1=None, l0=8.0), True),
        (GATED, replace(GATED, input_scale="unit"), False),
        (STANDARD, replace(STANDARD, variant="april"), False),
        (JUMPRELU, replace(JUMPRELU, free_decoder=True), False),
        (STANDARD, GATED, False),
        (STANDARD, ALL["p_anneal"], False),
        (TOPK, ALL["batchtopk"], False),
        (STANDARD, replace(STANDARD, centre=True), False),
        (STANDARD, replace(STANDARD, lookup="frozen"), False),
        (STANDARD, replace(STANDARD, resample=True), False),
        (STANDARD, replace(STANDARD, decoder_init="data", b_dec_init="zero", encoder_init="random"), True),
        (JUMPRELU, replace(JUMPRELU, penalty="frequency"), False),
        (JUMPRELU, replace(JUMPRELU, penalty="l0", bandwidth=0.5), True),
        (ALL["matryoshka"], replace(ALL["matryoshka"], groups=2, prefixes="sampled"), True),
        (TOPK, replace(TOPK, k=3, auxk=0, auxk_coefficient=0.5), True),
        (TOPK, replace(TOPK, groups=2), False),
        (replace(TOPK, groups=3), replace(TOPK, groups=2, prefixes="sampled"), True),
        (ALL["hierarchical_topk"], replace(ALL["hierarchical_topk"], k=5, budgets="all"), True),
        (ALL["ortsae"], replace(ALL["ortsae"], orthogonality=0.0, orthogonality_chunk=5), True),
        (ALL["ortsae"], ALL["batchtopk"], False),
    ],
)
def test_what_may_share_a_bank(one: SaeConfig, other: SaeConfig, together: bool) -> None:
    assert (one.structure() == other.structure()) == together


@pytest.mark.parametrize("option", KNOBS)
def test_what_can_be_trained_is_accepted(option: str) -> None:
    ALL[option].check(D, WIDTH)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (replace(STANDARD, variant="mai"), "sae.variant=mai"),
        (replace(STANDARD, input_scale="two"), "sae.input_scale=two"),
        (replace(GATED, coefficient_unit="mean"), "sae.coefficient_unit=mean"),
        (replace(GATED, l1=-1.0), "sae.l1=-1"),
        (replace(GATED, l1=None, l0=65.0), "sae.l0=65"),
        (replace(GATED, l1=None, l0=0.0), "sae.l0=0"),
        (replace(TOPK, k=0), "sae.k=0"),
        (replace(TOPK, k=65), "sae.k=65"),
        (replace(TOPK, k=None, l0=0.4), "sae.l0=0.4"),
        (replace(TOPK, k=None, l0=2.5), "sae.l0=2.5 must be a whole number from 1 up for topk"),
        (replace(TOPK, auxk=-1), "sae.auxk=-1"),
        (replace(TOPK, auxk_coefficient=-1.0), "sae.auxk_coefficient=-1"),
        (replace(TOPK, dead_after_tokens=0.0), "sae.dead_after_tokens=0"),
        (replace(STANDARD, decoder_init="zeros"), "sae.decoder_init=zeros"),
        (replace(STANDARD, encoder_init="zeros"), "sae.encoder_init=zeros"),
        (replace(STANDARD, b_dec_init="median"), "sae.b_dec_init=median"),
        (replace(STANDARD, lookup="yes"), "sae.lookup=yes"),
        (replace(STANDARD, lookup_subtract=True), "sae.lookup_subtract=true"),
        (replace(STANDARD, lookup_scale=-1.0), "sae.lookup_scale=-1"),
        (replace(STANDARD, lookup_lr=0.0), "sae.lookup_lr=0"),
        (replace(GATED, variant="mai"), "sae.variant=mai"),
        (replace(ALL["p_anneal"], p_end=0.0), "sae.p_end=0"),
        (replace(ALL["p_anneal"], anneal_after_steps=-1), "sae.anneal_after_steps=-1"),
        (replace(JUMPRELU, variant="mai"), "sae.variant=mai"),
        (replace(JUMPRELU, penalty="tanh"), "sae.penalty=tanh"),
        (replace(JUMPRELU, penalty="target_l0"), "sae.l0"),
        (replace(JUMPRELU, bandwidth=0.0), "sae.bandwidth=0"),
        (replace(JUMPRELU, threshold_init=0.0), "sae.threshold_init=0"),
        (replace(JUMPRELU, l0_coefficient=-1.0), "sae.l0_coefficient=-1"),
        (replace(ALL["jumprelu_anthropic"], penalty="l0"), "sae.penalty=l0"),
        (replace(ALL["jumprelu_anthropic"], preactivation_coefficient=-1.0), "sae.preactivation_coefficient=-1"),
        (replace(ALL["matryoshka"], groups=0), "sae.groups=0"),
        (replace(ALL["matryoshka"], groups=7), "sae.groups=7"),
        (replace(ALL["matryoshka"], prefixes="all"), "sae.prefixes=all"),
        (replace(TOPK, groups=7), "sae.groups=7"),
        (replace(STANDARD, groups=0), "sae.groups=0"),
        (replace(JUMPRELU, prefixes="some"), "sae.prefixes=some"),
        (replace(ALL["hierarchical_topk"], budgets="half"), "sae.budgets=half"),
        (replace(ALL["hierarchical_topk"], groups=2), "sae.groups=2: hierarchical_topk nests what fires"),
        (replace(ALL["ortsae"], orthogonality=-1.0), "sae.orthogonality=-1"),
        (replace(ALL["temporal"], high_share=1.0), "sae.high_share=1"),
        (replace(ALL["temporal"], contrast=-1.0), "sae.contrast=-1"),
        (replace(ALL["temporal"], groups=3), "sae.groups=3 sae.prefixes=fixed: temporal has two fixed ones"),
        (
            replace(ALL["temporal"], lookup="learned", lookup_subtract=True),
            "sae.lookup_subtract=true is not for temporal",
        ),
        (replace(ALL["ortsae"], orthogonality_chunk=1), "sae.orthogonality_chunk=1"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_key(config: SaeConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.check(D, WIDTH)
