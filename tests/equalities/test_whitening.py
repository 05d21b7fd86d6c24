"""Whitened by the program == whitened beforehand: the same training, and what is saved takes raw activations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.activations.whitening import Whitening, whitening
from sae_sweep.interop import load_sae, saelens
from sae_sweep.model.sites import Site
from sae_sweep.plan.groups import BankPlan
from sae_sweep.plan.members import Member
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.trainer import BankTrainer
from tests.training.fabricate import SITE, VOCABULARY, D, activations, logged, member, unigrams

ROWS, STEPS = 640, 20
OUTPUT = Site("mlp_out", 0, "blocks.0.hook_mlp_out")


def block(x_BD: Tensor, y_BD: Tensor | None) -> Block:
    tokens_B = torch.randint(VOCABULARY, (len(x_BD),), generator=torch.Generator().manual_seed(3))
    found = {SITE.hook: x_BD} | ({} if y_BD is None else {OUTPUT.hook: y_BD})
    return Block(0, 0, found, dict.fromkeys(found, tokens_B))


def trainer(one: Member, made: Block, table_VD: Tensor) -> BankTrainer:
    sae = one.config.sae
    stats = site_statistics(made, centred=sae.centre, covariance=sae.whitens)
    calibration = Calibration(
        (stats[SITE.hook],),
        torch.device("cpu"),
        torch.float64,
        targets=(stats[OUTPUT.hook],) if OUTPUT.hook in stats else (),
        unigrams_VD=table_VD if sae.lookup != "none" else None,
    )
    return BankTrainer(BankPlan(one.site, (logged(one, 1),)), calibration)


def of_raw(made: Block, hook: str) -> Whitening:
    return whitening(site_statistics(made, covariance=True)[hook])


def correlated(seed: int) -> Tensor:
    """[ROWS, D] float64: numbers of very different size, each a mixture."""
    mixed = torch.randn(D, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return activations(ROWS, seed).double() @ (mixed * torch.logspace(-1, 1, D, dtype=torch.float64)) + 0.5


def check_codes(raw: InferenceSae, beforehand: InferenceSae, x_BD: Tensor, whitened_BD: Tensor, back: Tensor) -> None:
    tokens_B = block(x_BD, None).tokens[SITE.hook]
    f_BF = raw.encode(x_BD, tokens_B)
    torch.testing.assert_close(f_BF, beforehand.encode(whitened_BD, tokens_B), rtol=1e-8, atol=1e-8)
    assert f_BF.count_nonzero() > 0
    given = beforehand.decode(f_BF, tokens_B, whitened_BD) @ back
    torch.testing.assert_close(raw.decode(f_BF, tokens_B, x_BD), given, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("standard", {"sae_l1": 0.3, "sae_centre": True}),
        ("topk", {"sae_k": 3, "sae_lookup": "learned", "sae_lookup_subtract": True}),
        ("jumprelu", {"sae_l0": 3.0, "sae_bandwidth": 0.3}),
        ("gated", {"sae_l1": 0.3, "sae_lookup": "learned"}),
    ],
)
def test_an_autoencoder(kind: str, keys: dict[str, Any], tmp_path: Path) -> None:
    x_BD = correlated(1)
    by = of_raw(block(x_BD, None), SITE.hook)
    table_VD = unigrams().double()
    runs = []
    for scale, rows_BD, tokens_VD in (("whiten", x_BD, table_VD), ("none", by.of(x_BD), by.of(table_VD))):
        one = member(kind, sae_input_scale=scale, training_tokens=float(ROWS), training_lr=1e-2, **keys)
        made = block(rows_BD, None)
        runs.append((trainer(one, made, tokens_VD), made))
    (raw, raw_block), (beforehand, whitened_block) = runs
    for name, tensor in beforehand.bank.storage.items():  # rounded to float32 where it began
        torch.testing.assert_close(raw.bank.storage[name], tensor, rtol=1e-5, atol=1e-5)
        raw.bank.storage[name].copy_(tensor)
    raw.consume(raw_block, lambda: None)
    beforehand.consume(whitened_block, lambda: None)
    assert raw.members[0].step == STEPS
    for own, theirs in zip(raw.records, beforehand.records, strict=True):
        assert own.values == pytest.approx(theirs.values, rel=1e-8, abs=1e-9)
    sae = raw.members[0].inference()
    check_codes(sae, beforehand.members[0].inference(), x_BD, by.of(x_BD), by.inverse_DD)
    single, tokens_B = sae.mapped(lambda tensor: tensor.float()), raw_block.tokens[SITE.hook]
    saelens.write(tmp_path, single, {}, None)
    assert torch.equal(load_sae(tmp_path).encode(x_BD.float(), tokens_B), single.encode(x_BD.float(), tokens_B))


@pytest.mark.parametrize("centre", [False, True])
def test_a_transcoder_whitens_both_of_its_places(centre: bool) -> None:
    x_BD, y_BD = correlated(1), correlated(2)
    raw_block = block(x_BD, y_BD)
    reads, writes = of_raw(raw_block, SITE.hook), of_raw(raw_block, OUTPUT.hook)
    made = []
    for scale, own in (("whiten", raw_block), ("none", block(reads.of(x_BD), writes.of(y_BD)))):
        keys = {"sae_k": 3, "sae_skip": True, "sae_centre": centre, "sae_input_scale": scale}
        one = member("topk", training_tokens=float(ROWS), training_lr=1e-2, **keys)
        made.append(trainer(replace(one, site=replace(SITE, output=OUTPUT)), own, unigrams()))
        if len(made) == 2:
            for name, tensor in made[1].bank.storage.items():
                tensor.copy_(made[0].bank.storage[name])
    made[0].consume(raw_block, lambda: None)
    made[1].consume(block(reads.of(x_BD), writes.of(y_BD)), lambda: None)
    saes = [each.members[0].inference() for each in made]
    check_codes(*saes, x_BD, reads.of(x_BD), writes.inverse_DD)
