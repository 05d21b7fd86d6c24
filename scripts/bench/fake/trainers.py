"""Trainers of any shape, on the fake device where nothing is computed, or on one that is there."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from sae_sweep.activations.block import Block
from sae_sweep.activations.scaling import SiteStatistics
from sae_sweep.config.files import config_of
from sae_sweep.model.sites import Site
from sae_sweep.plan.groups import BankPlan
from sae_sweep.plan.members import Member
from sae_sweep.plan.schedules import resolve_schedule
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.trainer import BankTrainer
from scripts.bench.fake.device import DEVICE

SITE = Site("resid_post", 0, "blocks.0.hook_resid_post")
VOCABULARY = 12
SAMPLE = 64


def member(d: int, sae: str, name: str = "one", **keys: Any) -> Member:
    """A member of these keys, `training.lr` as training_lr; its inputs have d numbers."""
    asked = {key.replace("_", ".", 1) if key != "seed" else key: value for key, value in keys.items()}
    fixed = {"tracking": "none", "site.layer": 0}
    config = config_of({"sae": sae, **fixed, **asked})
    width = config.sae.width
    assert width is not None
    return Member(config, name, name, SITE, d, width, resolve_schedule(config, d, width), d)


def trainer(members: Sequence[Member], log_every: int = 100, device: torch.device = DEVICE) -> BankTrainer:
    """A trainer of these members as one bank."""
    first = members[0]
    table = torch.randn(VOCABULARY, first.d, device=device) if first.config.sae.lookup != "none" else None
    made = Calibration(
        (statistics(first.d, first.config.sae.centre, device),), device, torch.float32, unigrams_VD=table
    )
    return BankTrainer(BankPlan(SITE, tuple(_logged(each, log_every) for each in members)), made)


def statistics(d: int, centred: bool, device: torch.device = DEVICE) -> SiteStatistics:
    """Of activations with norms about the square root of d."""
    mean = torch.zeros(d, dtype=torch.float64, device=device)
    sample = torch.randn(SAMPLE, d, dtype=torch.bfloat16, device=device)
    return SiteStatistics(mean, d**0.5, float(d), sample, mean if centred else None)


def block(d: int, rows: int, index: int = 0, device: torch.device = DEVICE) -> Block:
    """A block of bfloat16 activations."""
    tokens_B = torch.randint(VOCABULARY, (rows,), device=device)
    x_BD = torch.randn(rows, d, dtype=torch.bfloat16, device=device)
    return Block(index, 0, {SITE.hook: x_BD}, {SITE.hook: tokens_B}, before_B=torch.zeros_like(tokens_B))


def _logged(one: Member, every: int) -> Member:
    tracking = replace(one.config.tracking, log_every=every)
    return replace(one, config=replace(one.config, tracking=tracking))
