"""Trained in a group == trained alone, for every architecture."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
import torch

from sae_sweep.plan.members import Member
from sae_sweep.training.step import trainer as trainer_module
from sae_sweep.training.step.trainer import BankTrainer
from tests.training.fabricate import (
    KINDS,
    TOPK_KINDS,
    VOCABULARY,
    D,
    block,
    finish,
    member,
    parameters,
    silence,
    train,
    trainer,
)

FIXED: dict[str, Any] = {"sae_width": 24, "training_lr": 1e-2, "seed": 1}
L1_MEMBERS: list[dict[str, Any]] = [
    {"sae_l1": 0.05, **FIXED},
    {"sae_l1": 1.5, "sae_width": 40, "training_lr": 3e-2, "seed": 2, "training_clip": 0.5},
    {"sae_l0": 3.0, "sae_width": 17, "training_lr": 2e-2, "seed": 3},  # steered
    {"sae_l1": 0.4, "sae_width": 24, "seed": 1, "training_lr_decay_fraction": 0.3, "training_tokens": 1120.0},
]
L0_MEMBERS: list[dict[str, Any]] = [
    {"sae_l0_coefficient": 0.01, **FIXED},
    {"sae_l0_coefficient": 0.1, "sae_width": 40, "training_lr": 3e-2, "seed": 2, "training_clip": 0.5},
    {"sae_l0": 3.0, "sae_width": 17, "training_lr": 2e-2, "seed": 3, "sae_bandwidth": 0.1},  # steered
    {"sae_l0_coefficient": 0.03, "sae_width": 24, "seed": 1, "training_tokens": 1120.0, "sae_bandwidth": 0.03},
]
K_MEMBERS: list[dict[str, Any]] = [
    {"sae_k": 2, **FIXED},
    {"sae_k": 1, "sae_width": 40, "training_lr": 5e-3, "seed": 2, "sae_auxk": 7},
    {"sae_l0": 5.0, "sae_width": 17, "training_lr": 1e-3, "seed": 3},
    {"sae_k": 2, "sae_width": 24, "seed": 1, "sae_auxk": 0, "training_tokens": 1120.0},
]
PREFIXES: list[dict[str, Any]] = [
    {"sae_groups": 3},
    {"sae_groups": 5},
    {"sae_groups": 4, "sae_prefixes": "sampled"},
    {"sae_groups": 1},
]
JUMPRELU: dict[str, Any] = {"sae_bandwidth": 0.05, "sae_threshold_init": 0.02}
MEMBERS: dict[str, list[dict[str, Any]]] = {
    "standard": L1_MEMBERS,
    "april": [{**entries, "training_sparsity_warmup_steps": 7} for entries in L1_MEMBERS],
    "gated": L1_MEMBERS,
    "topk": K_MEMBERS,
    "gated_decoder_norm": [{**entries, "sae_resample": True} for entries in L1_MEMBERS],
    # f^p is steeper near 0 than a float can tell: at p = 0.6 one bit of a parameter moves the 50th step by 3e-9.
    "p_anneal": [{"sae_p_end": 1 - 0.05 * i, **entries} for i, entries in enumerate(L1_MEMBERS)],
    "batchtopk": K_MEMBERS,
    "matryoshka": [{**own, **entries} for own, entries in zip(PREFIXES, K_MEMBERS, strict=True)],
    "jumprelu": [{"sae_penalty": "l0", **JUMPRELU, **entries} for entries in L0_MEMBERS],
    "jumprelu_target_l0": [
        {"sae_l0": 2.0, **JUMPRELU, **FIXED},
        {"sae_l0": 4.5, **JUMPRELU, "sae_width": 40, "training_lr": 3e-2, "seed": 2, "training_clip": 0.5},
        {"sae_l0": 3.0, **JUMPRELU, "sae_width": 17, "training_lr": 2e-2, "seed": 3, "sae_bandwidth": 0.1},
        {"sae_l0": 10.0, **JUMPRELU, "sae_width": 24, "seed": 1, "training_tokens": 1120.0},
    ],
    "jumprelu_frequency": [
        {"sae_penalty": "frequency", "sae_frequency_scale": 10.0 ** (i - 2), **JUMPRELU, **entries}
        for i, entries in enumerate(L0_MEMBERS)
    ],
    "jumprelu_anthropic": [{"sae_preactivation_coefficient": 1e-3 * i, **m} for i, m in enumerate(L0_MEMBERS)],
    "hierarchical_topk": [
        {"sae_budgets": which, **own} for which, own in zip(("powers", "all", "all", "powers"), K_MEMBERS, strict=True)
    ],
    "temporal": [{"sae_contrast": 0.3 * i, "sae_high_share": 0.5 - 0.1 * i, **m} for i, m in enumerate(K_MEMBERS)],
    "ortsae": [{"sae_orthogonality": 0.1 * i, "sae_orthogonality_chunk": 9, **m} for i, m in enumerate(K_MEMBERS)],
}
MEMBERS["jumprelu_gemma_scope_2"] = [
    {"sae_groups": 4 - i, "sae_frequency_scale": 10.0 ** (i - 1), **m}
    for i, m in enumerate(MEMBERS["jumprelu_target_l0"][:2])
] + [{"sae_groups": 2, "sae_prefixes": "sampled", **m} for m in MEMBERS["jumprelu_target_l0"][2:]]

SOME = ("standard", "gated", "batchtopk", "matryoshka", "jumprelu_target_l0")
"""One of each way to choose what fires."""
TABLES = (("learned", False, False), ("learned", True, True), ("frozen", False, True))


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members choose their route every few steps, so that they change it within the test."""
    monkeypatch.setattr(trainer_module, "ROUTE_EVERY", 4)


def members(kind: str, batch_size: int = 32, **keys: Any) -> list[Member]:
    """As many steps whatever the batch size: 50, and 35 of the last."""
    return [
        member(
            kind,
            **{**entries, "training_tokens": entries.get("training_tokens", 1600.0) * batch_size / 32},
            **keys,
            training_batch_size=batch_size,
        )
        for entries in MEMBERS[kind]
    ]


def member_like(one: Member, **keys: Any) -> Member:
    """A member with other keys of `sae`."""
    sae = replace(one.config.sae, **keys)
    return replace(one, config=replace(one.config, sae=sae))


def assert_same(made: BankTrainer, index: int, alone: BankTrainer, tolerance: float) -> None:
    for name, expected in parameters(alone, 0).items():
        found = parameters(made, index)[name]
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
    assert made.bank.buffers.keys() == alone.bank.buffers.keys()
    for name, whole in made.bank.buffers.items():
        own = alone.bank.buffers[name][0]
        torch.testing.assert_close(whole[index], own, rtol=tolerance, atol=tolerance, equal_nan=True)


def compare(kind: str, group: Sequence[Member]) -> BankTrainer:
    together = finish(silence(trainer(group, log_every=1), 3))
    for index, one in enumerate(group):
        alone = finish(silence(trainer([one], log_every=1), 3))
        assert_same(together, index, alone, 1e-9)
        assert together.trained.coefficients.value_M[index].item() == pytest.approx(
            alone.trained.coefficients.value_M[0].item(), rel=1e-12
        )
        assert together.members[index].dead_fraction == alone.members[0].dead_fraction
        assert together.members[index].dense == alone.members[0].dense
        records = [record for record in together.records if record.label == one.label]
        assert [(r.step, r.tokens) for r in records] == [(r.step, r.tokens) for r in alone.records]
        for own, theirs in zip(records, alone.records, strict=True):
            assert own.values == pytest.approx(theirs.values, rel=1e-8, abs=1e-11)
    return together


@pytest.mark.parametrize(("kind", "batch_size"), [*((kind, 32) for kind in KINDS), ("gated", 48), ("batchtopk", 48)])
def test_fifty_steps(kind: str, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Different widths, rates, seeds, sparsities and budgets; resampling, steering and AuxK on the way."""
    revived: list[int] = []
    real = trainer_module.resample

    def counted(*args: Any) -> Any:
        latents = real(*args)
        revived.append(len(latents))
        return latents

    monkeypatch.setattr(trainer_module, "resample", counted)
    group = members(kind, batch_size)
    together = compare(kind, group)
    assert [state.step for state in together.members] == [50, 50, 50, 35]
    if kind in TOPK_KINDS:
        auxiliary = {r.label: r.values["auxiliary"] for r in together.records if r.values["auxiliary"] > 0}
        assert {one.label for one in group[:2]} <= auxiliary.keys()
    else:
        assert sum(revived) >= 2 * 3 * len(group)  # together and alone
    if kind not in (*TOPK_KINDS, "jumprelu_target_l0", "jumprelu_gemma_scope_2"):
        steered = [r.values["coefficient"] for r in together.records if r.label == group[2].label]
        assert max(steered) > 1.01 * min(steered)


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        pytest.param(kind, table, marks=() if kind in SOME else pytest.mark.evidence)
        for kind, table in zip(KINDS, cycle(TABLES), strict=False)
    ],
)
def test_fifty_steps_with_a_table_of_tokens(kind: str, table: tuple[str, bool, bool]) -> None:
    """Each member's own table, which the encoder may see or not; inputs about their mean or not."""
    lookup, subtract, centre = table
    keys = {"sae_lookup": lookup, "sae_lookup_subtract": subtract, "sae_centre": centre}
    group = [
        member_like(one, lookup_scale=0.2 * (i + 1), lookup_lr=3e-3 * (i + 1))
        for i, one in enumerate(members(kind, **keys))
    ]
    together = compare(kind, group)
    stored = together.bank.storage if lookup == "learned" else together.bank.buffers
    table_MVD = stored["lookup"]
    assert table_MVD.shape == (4, VOCABULARY, D)
    assert not torch.equal(table_MVD[0], table_MVD[1])


@pytest.mark.parametrize("kind", SOME)
def test_however_the_bank_is_cut_into_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(members(kind))
    monkeypatch.setitem(trainer_module.CHUNK_ELEMENTS, "cpu", 32 * 45)
    cut = train(members(kind))
    for index in range(len(MEMBERS[kind])):
        for name, expected in parameters(whole, index).items():
            torch.testing.assert_close(parameters(cut, index)[name], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", SOME)
def test_order_in_the_bank_does_not_matter(kind: str) -> None:
    group = members(kind)
    forth, back = train(group), train(group[::-1])
    for index in range(len(group)):
        for name, expected in parameters(forth, index).items():
            torch.testing.assert_close(parameters(back, len(group) - 1 - index)[name], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_in_float32(kind: str) -> None:
    """Adam's first step is lr x sign of the gradient: equal to rounding, or it would be off by 2 lr."""
    group = members(kind)
    together = trainer(group, torch.float32)
    together.consume(block(0, rows=32), lambda: None)
    for index, one in enumerate(group):
        alone = trainer([one], torch.float32)
        alone.consume(block(0, rows=32), lambda: None)
        assert_same(together, index, alone, 2e-6)
        assert together.members[index].step == 1


@pytest.mark.parametrize("kind", SOME)
def test_same_config_twice_is_the_same_member_twice(kind: str) -> None:
    one = members(kind)[1]
    made = train([one, one])
    for name, first in parameters(made, 0).items():
        torch.testing.assert_close(parameters(made, 1)[name], first, rtol=1e-9, atol=1e-9)
