"""Losses and gradients of objectives that run the model on, against plain autograd through the whole model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config

from sae_sweep.activations.block import Block
from sae_sweep.activations.sequences import Sequences, WholePasses
from sae_sweep.config.schema import ModelConfig, TrainingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.head import Head
from sae_sweep.model.load import load_model
from sae_sweep.model.sites import Site, later_sites
from sae_sweep.plan import constants
from sae_sweep.saes.bank import Batch, Chunk
from sae_sweep.saes.base import Losses, Parameters
from sae_sweep.training.step.objectives import EndToEnd, SplicedLoss, Splicing
from tests.saes import reference
from tests.saes.kinds import KINDS, configs
from tests.saes.problems import CLOCKS, COEFFICIENTS, KS, VARIANCE, WIDTHS, D, Problem, parameters_of, terms_of
from tests.training.fabricate import member_configuration

LAYER, HOOK = 1, "blocks.1.hook_resid_post"
AIMED = ("jumprelu_target_l0", "jumprelu_gemma_scope_2")
LATER = ("blocks.2.hook_resid_post", "blocks.3.hook_resid_post")
EOS, BOS = 0, 1
SCALE = 1.7
WORTH = 0.3
OBJECTIVES = ("e2e", "e2e_downstream", "kl_mse")


def training(objective: str) -> TrainingConfig:
    own = {"training_kl_coefficient": 0.6, "training_downstream_coefficient": 1.9}
    return member_configuration("topk", training_objective=objective, **own).training


@dataclass(frozen=True)
class World:
    """A small model, some rows that it read, and the same model as anyone would load it."""

    splicing: Splicing
    plain: Any
    sequences: Sequences
    tokens_RT: Tensor

    def objective(self, name: str, rows_at_once: int = 2) -> EndToEnd:
        splicing = Splicing(self.splicing.model, [HOOK, *LATER], rows_at_once)
        later = LATER if name == "e2e_downstream" else ()
        return EndToEnd(splicing, HOOK, later, training(name), len(self.tokens_RT))

    @property
    def counted_RT(self) -> Tensor:
        """Neither special nor the first of its row, nor too long."""
        places_T = torch.arange(self.tokens_RT.shape[1])
        return (self.tokens_RT > BOS) & (places_T > 0) & self.sequences.inliers.get(HOOK, self.tokens_RT >= 0)

    @property
    def x_BD(self) -> Tensor:
        """The activations there."""
        return self.states()[LAYER + 1][self.counted_RT]

    @torch.no_grad()
    def states(self) -> tuple[Tensor, ...]:
        """What enters each block, then the final hidden states."""
        found: tuple[Tensor, ...] = self.plain(input_ids=self.tokens_RT, output_hidden_states=True).hidden_states
        return found

    def spliced(self, x_hat_BD: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the outputs of later blocks, with reconstructions in place of counted activations."""
        outputs: list[Tensor] = []

        def replaced(_: object, __: object, output: Tensor) -> Tensor:
            changed = output.detach().clone()
            changed[self.counted_RT] = x_hat_BD
            return changed

        layers = self.plain.transformer.h
        handles = [layers[LAYER].register_forward_hook(replaced)]
        handles += [
            layer.register_forward_hook(lambda _, __, output: outputs.append(output)) for layer in layers[LAYER + 1 :]
        ]
        logits = self.plain(input_ids=self.tokens_RT).logits
        for handle in handles:
            handle.remove()
        return logits, outputs

    def expected(self, name: str, x_BD: Tensor, x_hat_BD: Tensor) -> Tensor:
        """The objective's term of the loss from its definition; both arguments are SCALE times activations."""
        logits_RTV, later = self.spliced(x_hat_BD / SCALE)
        with torch.no_grad():
            clean_RTV = self.plain(input_ids=self.tokens_RT).logits
            _, clean_later = self.spliced(self.x_BD)
        p, q = clean_RTV.softmax(-1), logits_RTV.softmax(-1)
        next_counts = torch.cat([self.tokens_RT[:, 1:] > BOS, torch.zeros(len(self.tokens_RT), 1).bool()], dim=1)
        kl = (p * (p / q).log()).sum(-1)[self.counted_RT & next_counts].mean()
        if name == "e2e":
            return 0.6 * kl
        if name == "kl_mse":
            squared = (x_BD - x_hat_BD).square().sum(1).mean()
            return (squared + 0.6 * (squared / kl).detach() * kl) / 1.6
        changes = [(a - b)[self.counted_RT] for a, b in zip(later, clean_later, strict=True)]
        return 0.6 * kl + 1.9 * torch.stack([change.square().mean() for change in changes]).mean()


@pytest.fixture(scope="module")
def world(build_model: Callable[..., Path]) -> World:
    """Activations as wide as the problems of `tests/saes`; rows with special tokens inside."""
    folder = build_model("narrow", GPT2Config, n_embd=D, n_layer=4, n_head=1, n_inner=12)
    unstated = dict.fromkeys(("d_model", "n_layers", "n_heads", "d_head", "d_mlp", "vocab_size"))
    named = {"name": "narrow", "path": str(folder), "revision": None, "backend": "hf", "dtype": "float64"}
    model = load_model(ModelConfig(**named, device="cpu", trust_remote_code=False, **unstated))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval().requires_grad_(False)
    tokens_RT = torch.randint(3, 300, (5, 11), generator=torch.Generator().manual_seed(3))
    tokens_RT[0, 0], tokens_RT[1, 4], tokens_RT[2, 7:] = BOS, EOS, EOS
    splicing = Splicing(model, [HOOK, *LATER], 2)
    whole = WholePasses(splicing.suffix)
    for part_RT in tokens_RT.split(2):
        whole(model, part_RT, [HOOK])
    counted_RT = (tokens_RT > BOS) & (torch.arange(11) > 0)
    target_RT = torch.zeros_like(counted_RT)
    target_RT[:, :-1] = counted_RT[:, :-1] & (tokens_RT[:, 1:] > BOS)
    return World(splicing, plain, Sequences(whole.take(), counted_RT, target_RT), tokens_RT)


def problem(world: World, kind: str, **keys: Any) -> Problem:
    """Three members that see the world's activations; some latents of the second are dead."""
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    x_BD = SCALE * world.x_BD
    dead = [torch.zeros(width, dtype=torch.bool) for width in WIDTHS]
    dead[1][[0, 2, 3]] = True
    parameters = [parameters_of(kind, width, x_BD, "half", generator) for width in WIDTHS]
    return Problem(kind, configs(kind, KS["half"], **keys), parameters, x_BD, dead)


def found(world: World, made: Problem, name: str, dense: bool, tokens_B: Tensor) -> tuple[Losses, list[Parameters]]:
    objective = SplicedLoss(world.objective(name), world.sequences, SCALE, WORTH)
    batch = Batch(made.x_BD, tokens_B, objective=objective)
    chunk, dead_F = Chunk(0, 3, dense), torch.cat(made.dead)
    return made.bank().gradients(batch, chunk, made.coefficient_M, dead_F, VARIANCE, CLOCKS)


def check(world: World, made: Problem, name: str, dense: bool, lookup: bool = False) -> None:
    tokens_B = made.token_B
    losses, gradients = found(world, made, name, dense, tokens_B)
    for index in range(3):
        p = reference.leaves(made.parameters[index])
        target_BD = reference.tokenized(p, made.x_BD, tokens_B, False)[1] if lookup else None
        terms = terms_of(made.configs[index], p, made.x_BD, made.dead[index], index, target_BD)
        x_hat_BD = terms.x_hat_BD if target_BD is None else terms.x_hat_BD + made.x_BD - target_BD
        value = world.expected(name, made.x_BD, x_hat_BD)
        assert losses.reconstruction_M[index].item() == pytest.approx(value.item(), rel=1e-9)
        assert losses.squared_M is not None
        squared = (x_hat_BD - made.x_BD).square().sum(1).mean()
        assert losses.squared_M[index].item() == pytest.approx(squared.item(), rel=1e-9)
        penalty = terms.sparsity * (WORTH if made.kind in AIMED else 1)  # which is in the loss's unit
        total = value + COEFFICIENTS[index] * penalty + WORTH * terms.auxiliary
        assert losses.total(made.coefficient_M)[index].item() == pytest.approx(total.item(), rel=1e-9)
        for parameter, expected in reference.gradients(p, total).items():
            actual = gradients[index][parameter]
            scale = float(expected.abs().max())
            torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-9 * scale, msg=lambda m, n=parameter: n + m)


@pytest.mark.parametrize(
    ("kind", "name", "dense"),
    [
        *((kind, name, False) for kind, name in zip(KINDS, cycle(OBJECTIVES))),
        *((kind, name, True) for kind in ("gated", "batchtopk", "jumprelu_target_l0") for name in OBJECTIVES),
    ],
)
def test_loss_and_gradients(world: World, kind: str, name: str, dense: bool) -> None:
    check(world, problem(world, kind), name, dense)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_table_of_tokens_is_part_of_the_reconstruction(world: World, name: str) -> None:
    check(world, problem(world, "topk").tokenized("learned", subtract=False), name, dense=False, lookup=True)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_auxiliary_terms_are_in_the_unit_of_the_loss(world: World, name: str) -> None:
    """An auxiliary term stands beside what reconstructing the mean costs as it would beside the variance."""
    block = Block(0, 0, {}, {}, world.sequences)
    objective = world.objective(name)
    mean_D = world.x_BD.mean(0)
    objective.calibrate(block, mean_D)
    expected = world.expected(name, SCALE * world.x_BD, SCALE * mean_D.expand_as(world.x_BD))
    assert objective.worth(4.0) == pytest.approx(1.0 if name == "kl_mse" else expected.item() / 4, rel=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_rows_and_positions_are_taken_some_at_a_time(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = problem(world, "gated")
    error_BMD = torch.randn(len(made.x_BD), 2, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    whole = SplicedLoss(world.objective(name, rows_at_once=5), world.sequences, SCALE, 1.0)
    leaf_BMD = error_BMD.requires_grad_()
    expected_M = whole.loss(leaf_BMD)
    (gradient_BMD,) = torch.autograd.grad(expected_M.sum(), [leaf_BMD])
    held: list[int] = []
    real = Head.__call__

    def logits(self: Head, hidden_ND: Tensor, tokens: slice) -> Tensor:
        logits_NV = real(self, hidden_ND, tokens)
        held.append(logits_NV.numel())
        return logits_NV

    monkeypatch.setitem(constants.TILE_POSITIONS, "cpu", 4)
    monkeypatch.setitem(constants.TILE_TOKENS, "cpu", 70)
    monkeypatch.setattr(Head, "__call__", logits)
    parts = SplicedLoss(world.objective(name, rows_at_once=1), world.sequences, SCALE, 1.0)
    found_M = parts.loss(leaf_BMD)
    assert max(held) == 4 * 70
    torch.testing.assert_close(found_M, expected_M, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found_M.sum(), [leaf_BMD])[0], gradient_BMD, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_perfect_reconstruction_costs_nothing(world: World, name: str) -> None:
    objective = SplicedLoss(world.objective(name), world.sequences, SCALE, 1.0)
    error_BMD = torch.zeros(len(world.x_BD), 1, D, dtype=torch.float64, requires_grad=True)
    loss_M = objective.loss(error_BMD)
    (gradient_BMD,) = torch.autograd.grad(loss_M.sum(), [error_BMD])
    assert abs(loss_M.item()) < 1e-12
    assert gradient_BMD.abs().max() < 1e-9


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_too_long_is_neither_replaced_nor_compared(world: World, name: str) -> None:
    inlier_RT = torch.ones_like(world.tokens_RT, dtype=torch.bool)
    inlier_RT[0, 3] = inlier_RT[3, 9] = inlier_RT[4, 10] = False
    guarded = replace(world, sequences=replace(world.sequences, inliers={HOOK: inlier_RT}))
    assert len(guarded.x_BD) == len(world.x_BD) - 3
    check(guarded, problem(guarded, "topk"), name, dense=False)


def test_rows_in_which_nothing_counts_are_in_no_batch(world: World) -> None:
    """As of a conversation where the user speaks for a whole row: the loss of such a batch would be 0 / 0."""
    counted_RT = world.sequences.counted_RT.clone()
    counted_RT[[0, 3]] = False
    block = Block(0, 0, {}, {}, replace(world.sequences, counted_RT=counted_RT))
    objective = EndToEnd(world.splicing, HOOK, (), training("e2e"), rows=1)
    assert objective.steps_in(block) == 3
    for number, row in enumerate((1, 2, 4)):
        rows, x_BD, tokens_B = objective.batch(block, number)
        assert rows.clean.tokens_RT.tolist() == world.tokens_RT[[row]].tolist()
        assert tokens_B.tolist() == world.tokens_RT[row][counted_RT[row]].tolist()
        assert torch.equal(x_BD, world.sequences.clean.activations[HOOK][row][counted_RT[row]])


def test_a_site_that_does_nothing_is_refused(world: World) -> None:
    block = Block(0, 0, {}, {}, world.sequences)
    objective = world.objective("e2e")
    same = replace(world.sequences, counted_RT=torch.zeros_like(world.sequences.counted_RT))
    with pytest.raises(ConfigError, match=r"training\.objective=e2e: the model predicts the same"):
        objective.calibrate(replace(block, sequences=same), world.x_BD.mean(0))


@pytest.mark.parametrize(
    ("kind", "layer", "most", "expected"),
    [
        ("resid_pre", 1, None, ["blocks.2.hook_resid_pre", "blocks.3.hook_resid_pre"]),
        ("resid_post", 1, None, ["blocks.2.hook_resid_post", "blocks.3.hook_resid_post"]),
        ("mlp_out", 0, 2, ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre"]),
        ("attn_z", 2, 1, ["blocks.3.hook_resid_pre"]),
        ("resid_post", 2, 5, ["blocks.3.hook_resid_post"]),
    ],
)
def test_later_sites(kind: str, layer: int, most: int | None, expected: list[str]) -> None:
    assert list(later_sites(Site(kind, layer, "here"), 4, most)) == expected


@pytest.mark.parametrize("site", [Site("resid_post", 3, "here"), Site("attn_z", 3, "here"), Site(None, None, "here")])
def test_no_later_site(site: Site) -> None:
    assert later_sites(site, 4, None) == ()
