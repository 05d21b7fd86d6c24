"""Transcoders made by hand, as `fabricate` makes autoencoders: what is reconstructed is a function of what is read."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from sae_sweep.activations.block import Block
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.model.sites import Site
from sae_sweep.plan.groups import BankPlan
from sae_sweep.plan.members import Member
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.trainer import BankTrainer
from tests.training import fabricate

OUTPUT = Site("mlp_out", 0, "blocks.0.hook_mlp_out")
SITE = replace(fabricate.SITE, output=OUTPUT)
D_OUT = 6


def transcoding(member: Member) -> Member:
    """The same member at two sites."""
    return replace(member, site=SITE, d_out=D_OUT)


def block(index: int, rows: int = 256) -> Block:
    """Targets are a ReLU layer of the inputs."""
    made = fabricate.block(index, rows)
    x_BD, tokens_B = made.activations[SITE.hook], made.tokens[SITE.hook]
    mix = torch.randn(fabricate.D, D_OUT, generator=torch.Generator().manual_seed(7))
    activations = {SITE.hook: x_BD, OUTPUT.hook: torch.relu(x_BD) @ mix + torch.linspace(0, 1, D_OUT)}
    return replace(made, activations=activations, tokens=dict.fromkeys(activations, tokens_B))


def trainer(members: Sequence[Member], dtype: torch.dtype = torch.float64) -> BankTrainer:
    """A trainer of these members as one bank."""
    of_site = site_statistics(block(0), centred=members[0].config.sae.centre)
    bank = BankPlan(SITE, tuple(members))
    made = Calibration((of_site[SITE.hook],), torch.device("cpu"), dtype, targets=(of_site[OUTPUT.hook],))
    return BankTrainer(bank, made)


def finish(made: BankTrainer) -> BankTrainer:
    """Train to the budgets."""
    index = 0
    while made.running:
        made.consume(block(index), lambda: None)
        index += 1
    return made
