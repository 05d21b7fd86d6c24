"""Members, banks and blocks made by hand: what a trainer needs, without a model or a plan."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.scaling import SiteStatistics, site_statistics
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.model.sites import Site
from sae_sweep.plan.groups import BankPlan
from sae_sweep.plan.members import Member
from sae_sweep.plan.schedules import resolve_schedule
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.trainer import BankTrainer

D = 8
SITE = Site("resid_post", 0, "blocks.0.hook_resid_post")
SAE = {
    "standard": "standard_paper",
    "april": "standard_april_paper",
    "gated": "gated_paper",
    "topk": "topk_paper",
    "gated_decoder_norm": "gated_decoder_norm_paper",
    "p_anneal": "p_anneal_paper",
    "batchtopk": "batchtopk_paper",
    "matryoshka": "matryoshka_paper",
    "jumprelu": "jumprelu_paper",
    "jumprelu_target_l0": "jumprelu_paper",
    "jumprelu_frequency": "jumprelu_paper",
    "jumprelu_anthropic": "jumprelu_anthropic_paper",
    "hierarchical_topk": "hierarchical_topk_paper",
    "ortsae": "ortsae_paper",
    "jumprelu_gemma_scope_2": "jumprelu_gemma_scope_2_paper",
    "temporal": "temporal_paper",
}
"""The file of configs/sae that each kind begins as."""
KINDS = tuple(SAE)
TOPK_KINDS = ("topk", "batchtopk", "matryoshka", "hierarchical_topk", "ortsae", "temporal")
FREE_DECODER = ("april", "gated_decoder_norm", "jumprelu_anthropic")
BUILT_ON_OTHERS = ("hierarchical_topk", "ortsae", "temporal", "jumprelu_gemma_scope_2")
"""Those whose tables, transcoders and checkpoints are those of the kinds that they are built on."""
VOCABULARY = 12
SMALL = {
    "tracking": "none",
    "tracking.log_every": 10,
    "site.layer": 0,
    "sae.width": 24,
    "training.tokens": 1600,
    "training.batch_size": 32,
}


def others_as_evidence(cases: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Parameters of a test, of which those whose kind is built on another are evidence."""
    marks = dict.fromkeys(BUILT_ON_OTHERS, (pytest.mark.evidence,))
    return [pytest.param(*case, marks=marks.get(case[0], ())) for case in cases]


def member_configuration(kind: str, **overrides: Any) -> MemberConfig:
    """The config of a member; overrides are `seed` and keys like `sae_l1` or `training_lr`."""
    own = {"sae.auxk": 4, "sae.dead_after_tokens": 96} if kind in TOPK_KINDS else {"sae.resample": True}
    asked = {key if key in ("seed", "init_from") else key.replace("_", ".", 1): overrides[key] for key in overrides}
    return config_of({"sae": SAE[kind], **SMALL, **own, **asked})


def member(kind: str, **overrides: Any) -> Member:
    config = member_configuration(kind, **overrides)
    width = config.sae.width
    assert width is not None
    label = f"{kind}-{sorted(overrides.items())}"
    return Member(config, label, label, SITE, D, width, resolve_schedule(config, D, width), D)


def activations(rows: int, seed: int = 0) -> Tensor:
    """[rows, D] float32: a mean, and a few of twenty directions at a time."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(20, D, generator=torch.Generator().manual_seed(99))
    sizes = torch.rand(rows, 20, generator=generator) * (torch.rand(rows, 20, generator=generator) < 0.15)
    return sizes @ directions + 0.02 * torch.randn(rows, D, generator=generator) + torch.linspace(-1, 1, D)


def block(index: int, rows: int = 256) -> Block:
    tokens_B = torch.randint(VOCABULARY, (rows,), generator=torch.Generator().manual_seed(index + 500))
    return Block(index, 0, {SITE.hook: activations(rows, index)}, {SITE.hook: tokens_B}, before_B=before(rows))


def before(rows: int) -> Tensor:
    """The place of the token before each: that of the row before, and none for every seventh."""
    places_B = torch.arange(rows)
    return torch.where(places_B % 7 == 0, -1, places_B - 1)


def statistics(*, centred: bool = False) -> SiteStatistics:
    return site_statistics(block(0), centred=centred)[SITE.hook]


def unigrams() -> Tensor:
    """[V, D]: what the model gives for each token by itself."""
    return activations(VOCABULARY, 1_000)


def trainer(members: Sequence[Member], dtype: torch.dtype = torch.float64, log_every: int = 10) -> BankTrainer:
    """A trainer of these members as one bank."""
    sae = members[0].config.sae
    table_VD = None if sae.lookup == "none" else unigrams()
    made = Calibration((statistics(centred=sae.centre),), torch.device("cpu"), dtype, unigrams_VD=table_VD)
    return BankTrainer(BankPlan(SITE, tuple(logged(member, log_every) for member in members)), made)


def logged(member: Member, every: int) -> Member:
    """The same member with a line for every so many steps."""
    config = member.config
    return replace(member, config=replace(config, tracking=replace(config.tracking, log_every=every)))


def train(members: Sequence[Member], dtype: torch.dtype = torch.float64, log_every: int = 10) -> BankTrainer:
    """Train these members as one bank to their budgets."""
    return finish(trainer(members, dtype, log_every))


def finish(made: BankTrainer) -> BankTrainer:
    """Train to the budgets."""
    index = 0
    while made.running:
        made.consume(block(index), lambda: None)
        index += 1
    return made


def parameters(made: BankTrainer, index: int) -> dict[str, Tensor]:
    """One member's parameters, copied."""
    return {name: t.clone() for name, t in made.bank.member(made.bank.storage, index).items()}


def silence(made: BankTrainer, latents: int) -> BankTrainer:
    """The first latents of every member cannot fire until they are resampled."""
    name = "b_gate" if "b_gate" in made.bank.storage else "b_enc"
    for index in range(len(made.members)):
        made.bank.member(made.bank.storage, index)[name][:latents] = -100
    return made
