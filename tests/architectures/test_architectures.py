"""The facts of each architecture: knobs, recipes, shapes, and what it refuses."""

from dataclasses import replace
from math import sqrt
from typing import Any

import pytest

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.gated import GatedConfig
from sae_sweep.architectures.registry import ARCHITECTURES
from sae_sweep.architectures.standard import StandardConfig
from sae_sweep.architectures.topk import TopKConfig
from sae_sweep.errors import ConfigError
from sae_sweep.saes.registry import MATHS, maths_of
from sae_sweep.saes.topk import auxk_latents

D, WIDTH = 16, 64
COMMON: dict[str, Any] = {"expansion": None, "width": WIDTH, "l0": None, "input_scale": "none"}
L1: dict[str, Any] = {"l1": 0.1, "coefficient_unit": "sum", "resample": True}
STANDARD = StandardConfig("standard", **COMMON, **L1, variant="bricken")
GATED = GatedConfig("gated", **COMMON, **L1)
TOPK = TopKConfig("topk", **COMMON, k=8, auxk=None, auxk_coefficient=1 / 32, dead_after_tokens=1e7)
ALL = {"standard": STANDARD, "gated": GATED, "topk": TOPK}


def test_every_architecture_has_its_maths() -> None:
    assert ARCHITECTURES.keys() == MATHS.keys() == ALL.keys()
    for name, config in ALL.items():
        assert type(config) is ARCHITECTURES[name]
        assert type(maths_of(config)) is MATHS[name]


@pytest.mark.parametrize(("config", "knob"), [(STANDARD, "l1"), (GATED, "l1"), (TOPK, "k")])
def test_knob_is_a_field(config: SaeConfig, knob: str) -> None:
    assert config.knob() == knob
    assert getattr(config, knob) is not None


def test_gated_has_two_vectors_more_than_standard() -> None:
    """Tied encoders: r_mag, b_mag and b_gate in place of b_enc."""
    sizes = {
        name: sum(
            rows * (shape[1] if len(shape) > 1 else 1)
            for shape in c.parameters(D, WIDTH).values()
            for rows in shape[:1]
        )
        for name, c in ALL.items()
    }
    assert sizes["standard"] == 2 * D * WIDTH + WIDTH + D
    assert sizes["gated"] == sizes["standard"] + 2 * WIDTH
    assert sizes["topk"] == sizes["standard"]


def test_recipes_of_the_papers() -> None:
    gated = GATED.recipe(WIDTH)
    assert (gated.lr, gated.beta1, gated.beta2, gated.resample_every) == (3e-4, 0.0, 0.999, 25_000)
    assert (gated.lr_warmup_steps, gated.lr_decay_fraction, gated.clip) == (1_000, 0.0, 0.0)
    april = replace(STANDARD, variant="april", resample=False).recipe(WIDTH)
    assert (april.lr, april.beta1, april.beta2, april.clip) == (5e-5, 0.9, 0.999, 1.0)
    assert (april.lr_decay_fraction, april.resample_every) == (0.2, 0)
    assert STANDARD.recipe(WIDTH).resample_every == 25_000
    assert TOPK.recipe(2**14).lr == 2e-4
    assert TOPK.recipe(2**18).lr == pytest.approx(2e-4 / 4)
    assert TOPK.recipe(WIDTH).eps == 6.25e-10


@pytest.mark.parametrize("config", [STANDARD, GATED])
def test_resampling_can_be_left_out(config: Any) -> None:
    assert replace(config, resample=False).recipe(WIDTH).resample_every == 0


@pytest.mark.parametrize(("d", "expected"), [(512, 256), (768, 512), (1024, 512), (1280, 512), (2, 2), (64, 32)])
def test_auxk_is_the_power_of_two_nearest_half_of_d(d: int, expected: int) -> None:
    found = auxk_latents(TOPK, d)
    assert found & (found - 1) == 0
    assert 1 / sqrt(2) <= found / (max(d, 4) / 2) <= sqrt(2)
    assert found == expected
    assert auxk_latents(replace(TOPK, auxk=5), d) == 5


def test_k_or_l0() -> None:
    assert TOPK.active() == 8
    assert replace(TOPK, k=None, l0=12.0).active() == 12
    assert replace(TOPK, k=None, l0=12.6).active() == 13


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (GATED, replace(GATED, l1=5.0, width=8), True),
        (GATED, replace(GATED, l1=None, l0=8.0), True),
        (GATED, replace(GATED, input_scale="unit"), False),
        (STANDARD, replace(STANDARD, variant="april"), False),
        (STANDARD, GATED, False),
        (TOPK, replace(TOPK, k=3, auxk=0, auxk_coefficient=0.5), True),
    ],
)
def test_what_may_share_a_bank(one: SaeConfig, other: SaeConfig, together: bool) -> None:
    assert (one.structure() == other.structure()) == together


@pytest.mark.parametrize("config", ALL.values(), ids=ALL.keys())
def test_what_can_be_trained_is_accepted(config: SaeConfig) -> None:
    config.check(D, WIDTH)


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
        (replace(TOPK, auxk=65), "sae.auxk=65"),
        (replace(TOPK, auxk=-1), "sae.auxk=-1"),
        (replace(TOPK, auxk_coefficient=-1.0), "sae.auxk_coefficient=-1"),
        (replace(TOPK, dead_after_tokens=0.0), "sae.dead_after_tokens=0"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_key(config: SaeConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.check(D, WIDTH)
