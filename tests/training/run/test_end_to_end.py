"""Members of one sweep with different objectives: the passes they share, company, resuming, what is refused."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.activations.scaling import site_statistics
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.host.signals import Interrupted
from sae_sweep.interop import load_sae
from sae_sweep.launch.local import Outcome, run_sweep
from sae_sweep.model.language_model import Passes
from sae_sweep.plan.groups import Group, plan_sweep
from sae_sweep.plan.members import member_identity
from sae_sweep.training.run import opening
from sae_sweep.training.run.checkpointing import Keeper
from sae_sweep.training.run.loop import GroupRun
from sae_sweep.training.run.opening import open_group
from sae_sweep.training.step import trainer as trainer_module
from sae_sweep.training.step.member import TrainedMember
from tests.e2e.kills import assert_same
from tests.evaluation.groups import small
from tests.training.run.toy_sweeps import forget_config, sigterm

ROWS, FORWARDS = 32, 2
"""Of a block, and forward passes over them."""
E2E, DOWNSTREAM, KL_MSE = (f"training.objective={name}" for name in ("e2e", "e2e_downstream", "kl_mse"))
TOPK, GATED = ("sae=topk", "sae.k=5"), ("sae=gated", "sae.l0=6")


@pytest.fixture(scope="module")
def shared(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Blocks of 32 rows of 16 tokens; steps of 64 tokens, 8 to a block for who takes whole rows."""
    letters = random.Random(0)
    documents = ["".join(letters.choice("abcdefgh \n") for _ in range(90)) for _ in range(40)]
    text = tmp_path_factory.mktemp("text") / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": document}) for document in documents))
    return [
        *small(tmp_path_factory.mktemp("outputs"), llama_folder, text),
        *("site.layer=1", "training.batch_size=64", "training.tokens=1000", "training.lr=1e-2", "tracking.log_every=1"),
    ]


def config(shared: Sequence[str], *own: str) -> MemberConfig:
    return config_of([*shared, *own])


def group_of(shared: Sequence[str], *members: Sequence[str]) -> Group:
    (group,) = plan_sweep([config(shared, *own) for own in members]).groups
    return group


def passes(opened: GroupRun) -> Passes:
    made: Any = opened.source
    return made.model.passes


def train(opened: GroupRun, blocks: int = 2) -> dict[str, TrainedMember]:
    """The members after some blocks, by identity."""
    for index in range(blocks):
        block = opened.source.block(index)
        for trainer in opened._waves.trainers:
            trainer.consume(block, lambda: None)
    return {member.plan.identity: member for member in opened._waves.members}


def parameters(member: TrainedMember) -> dict[str, Tensor]:
    """Views of its parameters."""
    return {name: tensor for name, tensor in member.tensors().items() if name.startswith("parameters.")}


@pytest.mark.parametrize("members", [1, 3])
def test_passes(shared: list[str], members: int) -> None:
    """A block is one whole pass whoever asks for it; each step of a member is one suffix pass, and a local one none."""
    seeds = [f"seed={seed}" for seed in range(members)]
    own = [[*TOPK, E2E, seed] for seed in seeds] + [[*TOPK, DOWNSTREAM, seed] for seed in seeds]
    opened = open_group(group_of(shared, *own, TOPK, [*GATED, "site.layer=2"]))
    assert passes(opened) == Passes(harvest=0, clean=FORWARDS, suffix=2 * FORWARDS)  # calibration, of each objective
    train(opened)
    assert passes(opened).harvest == 0
    assert passes(opened).clean == (1 + 2) * FORWARDS
    assert passes(opened).suffix == 2 * FORWARDS + 2 * members * 15  # 1000 tokens are 15 steps of 64


@pytest.mark.parametrize("objective", [E2E, DOWNSTREAM, KL_MSE, "training.objective=local"])
def test_fvu_is_of_variance_whatever_the_objective(shared: list[str], objective: str) -> None:
    """Of the curves' first line, from the SAE that it is of; beside it what an end-to-end objective has recovered."""
    opened = open_group(group_of(shared, [*TOPK, objective, "sae.input_scale=unit"]))
    block, (trainer,) = opened.source.block(0), opened._waves.trainers
    (member,) = trainer.members
    sae, (whole_BD,) = member.inference(), block.activations.values()
    x_BD = whole_BD[:64] if trainer._end_to_end is None else trainer._end_to_end.batch(block, 0)[1]
    trainer.consume(block, lambda: None)
    found = trainer.records[0].values
    error = (sae.decode(sae.encode(x_BD)) - x_BD).square().sum(1).mean()
    variance = (whole_BD - whole_BD.mean(0)).square().sum(1).mean()
    assert found["fvu"] == pytest.approx(float(error / variance), rel=1e-4)
    assert ("unrecovered" in found) == (trainer._end_to_end is not None)
    if objective == E2E:
        assert found["unrecovered"] != pytest.approx(found["fvu"], rel=0.1)
    if objective == KL_MSE:  # which weighs its terms so that the loss is the squared error
        assert found["unrecovered"] == pytest.approx(found["fvu"], rel=1e-4)


def test_local_members_need_no_whole_pass(shared: list[str]) -> None:
    opened = open_group(group_of(shared, TOPK, [*GATED, "site.layer=2"]))
    train(opened)
    assert passes(opened) == Passes(harvest=(1 + 2) * FORWARDS, clean=0, suffix=0)


COMPANY = {
    "e2e": [
        [*TOPK, E2E],
        [*TOPK, E2E, "seed=1", "sae.width=24"],
        [*GATED, E2E],
        ["sae=standard_april", "sae.l1=0.01", E2E, "training.kl_coefficient=0.5"],
    ],
    "e2e_downstream": [
        [*TOPK, DOWNSTREAM],
        [*TOPK, DOWNSTREAM, "training.downstream_sites=1"],
        ["sae=jumprelu", "sae.l0=4", DOWNSTREAM, "site=mlp_out"],
        ["sae=matryoshka", "sae.k=4", "sae.groups=3", DOWNSTREAM, "sae.lookup=learned"],
    ],
    "kl_mse": [
        [*TOPK, KL_MSE],
        ["sae=batchtopk", "sae.k=4", KL_MSE, "sae.centre=true"],
        ["sae=p_anneal", "sae.l1=0.1", KL_MSE],
        TOPK,
        [*TOPK, E2E],
    ],
}


@pytest.mark.parametrize("company", COMPANY)
def test_group_equals_alone(
    shared: list[str], company: str, gpt2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a model whose every operation is in float64: a llama's norms are not."""
    monkeypatch.setattr(opening, "SAE_DTYPE", torch.float64)
    monkeypatch.setattr(trainer_module, "ROUTE_EVERY", 4)
    own = [*shared, "model.dtype=float64", f"model.path={gpt2_folder}"]
    together = train(open_group(group_of(own, *COMPANY[company])))
    assert len(together) == len(COMPANY[company])
    for member in COMPANY[company]:
        ((identity, alone),) = train(open_group(group_of(own, member))).items()
        found = parameters(together[identity])
        for name, expected in parameters(alone).items():
            torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        assert alone.step >= 14


@pytest.mark.parametrize(
    "own", [(*TOPK, "site=mlp"), (*GATED, "site.layer=null", "site.across=[1,2]")], ids=["transcoder", "crosscoder"]
)
def test_who_has_several_hooks_does_not_notice_the_others(shared: list[str], own: Sequence[str]) -> None:
    """Nor does an end-to-end member notice whose hooks are only read."""
    both = [own, [*TOPK, E2E]]
    together = train(open_group(group_of(shared, *both)))
    for each in both:
        alone = train(open_group(group_of(shared, each)))
        (identity,) = alone
        for name, tensor in parameters(alone[identity]).items():
            torch.testing.assert_close(parameters(together[identity])[name], tensor, rtol=0, atol=0)


def test_a_local_member_does_not_notice_the_others(shared: list[str]) -> None:
    """Its activations come from whole passes then, to the last bit those of passes that stop at the site."""
    group = group_of(shared, TOPK, [*TOPK, E2E])
    local = group.members[0].identity
    beside, alone = train(open_group(group))[local], train(open_group(group_of(shared, TOPK)))[local]
    assert parameters(beside).keys() == parameters(alone).keys()
    for name, expected in parameters(alone).items():
        assert torch.equal(parameters(beside)[name], expected)


def run(configs: Sequence[MemberConfig]) -> list[Outcome]:
    outcomes = run_sweep(list(configs))
    assert [outcome.reason for outcome in outcomes] == [None] * len(configs)
    return outcomes


MIXED = ([*TOPK, E2E], [*GATED, DOWNSTREAM], [*TOPK, KL_MSE], TOPK)


def test_resumed_equals_uninterrupted(shared: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def configs(place: str) -> list[MemberConfig]:
        own = [*shared, f"output_dir={tmp_path / place}", "training.tokens=1600"]
        return [config(own, *member) for member in MIXED]

    run(configs("whole"))
    steps, stops, real = iter(range(1, 1_000_000)), 0, Keeper.due

    def due(own: Keeper, tokens: int) -> bool:
        if next(steps) % 29 == 0:
            sigterm()
        return real(own, tokens)

    monkeypatch.setattr(Keeper, "due", due)
    while True:
        try:
            run(configs("stopped"))
        except Interrupted:
            stops += 1
        else:
            break
    assert stops >= 2
    assert_same(forget_config(tmp_path / "stopped" / "small"), forget_config(tmp_path / "whole" / "small"))


def test_saved_members_load_and_are_named(shared: list[str], tmp_path: Path) -> None:
    outcomes = run([config([*shared, f"output_dir={tmp_path}"], *member) for member in MIXED])
    assert [outcome.label for outcome in outcomes] == [
        *("topk-k_5-w40-e2e", "gated-l0_6-w40-e2e_downstream", "topk-k_5-w40-kl_mse", "topk-k_5-w40"),
    ]
    for outcome in outcomes:
        assert load_sae(outcome.folder).width == 40
    cells = json.loads((tmp_path / "small" / "pareto.json").read_text())["cells"]
    assert {point["architecture"] for cell in cells for point in cell["points"]} == {
        *("topk e2e", "gated e2e_downstream", "topk kl_mse", "topk"),
    }


def test_a_cache_changes_nothing(shared: list[str], tmp_path: Path) -> None:
    """Whole passes are made anyway, so nothing is kept or read."""

    def made(place: str, *own: str) -> Path:
        return run([config([*shared, f"output_dir={tmp_path / place}"], *TOPK, E2E, *own)])[0].folder

    plain, cached = made("plain"), made("cached", f"data.cache={tmp_path / 'cache'}")
    assert (cached / "sae_weights.safetensors").read_bytes() == (plain / "sae_weights.safetensors").read_bytes()


def test_what_an_objective_does_not_read_is_no_part_of_a_member(shared: list[str]) -> None:
    weighed = ("training.kl_coefficient=0.5", "training.downstream_sites=1")
    assert member_identity(config(shared, *TOPK)) == member_identity(config(shared, *TOPK, *weighed))
    assert member_identity(config(shared, E2E)) == member_identity(config(shared, E2E, weighed[1]))
    assert member_identity(config(shared, E2E)) != member_identity(config(shared, E2E, weighed[0]))
    assert member_identity(config(shared, DOWNSTREAM)) != member_identity(config(shared, DOWNSTREAM, weighed[1]))


def test_objectives_do_not_share_a_bank(shared: list[str]) -> None:
    own = [TOPK, [*TOPK, "seed=1"], [*TOPK, E2E], [*TOPK, E2E, "seed=1"], [*TOPK, DOWNSTREAM]]
    group = group_of(shared, *own)
    assert [len(bank.members) for bank in group.banks] == [2, 2, 1]
    assert group.spliced == tuple(f"blocks.{layer}.hook_resid_post" for layer in (1, 2, 3))
    weighed = [*TOPK, E2E, "training.kl_coefficient=2"]
    assert len(group_of(shared, [*TOPK, E2E], weighed).banks) == 2


def test_steering_starts_where_the_objective_is(shared: list[str]) -> None:
    """A coefficient is weighed against nats, so its first guess is too."""
    opened = open_group(group_of(shared, GATED, [*GATED, E2E]))
    local, spliced = (trainer for trainer in opened._waves.trainers)
    ratio = spliced.trained.coefficients.value_M / local.trained.coefficients.value_M
    variance = site_statistics(opened.source.block(0))["blocks.1.hook_resid_post"].variance
    assert ratio.item() == pytest.approx(spliced.trained.worth)
    assert local.trained.worth == 1
    assert spliced.trained.worth * variance < 20  # nats


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (["training.objective=kl"], r"training\.objective=kl is not one of local, e2e, e2e_downstream, kl_mse"),
        ([E2E, "training.batch_size=60"], r"training\.batch_size=60 is not a multiple of data\.context=16.* take 64"),
        ([E2E, "training.kl_coefficient=0"], r"training\.kl_coefficient=0 must be above 0"),
        ([DOWNSTREAM, "training.downstream_coefficient=-1"], r"training\.downstream_coefficient=-1 must be above 0"),
        ([DOWNSTREAM, "training.downstream_sites=0"], r"training\.downstream_sites=0 must be at least 1"),
        ([DOWNSTREAM, "site.layer=3"], r"no site after blocks\.3\.hook_resid_post"),
        (["sae=standard", "sae.l1=1", E2E, "sae.coefficient_unit=mean_d"], r"sae\.coefficient_unit=mean_d is about a"),
        ([E2E, "data=toy", "data.path=null", "model.path=null", "site.layer=null"], r"data\.kind=toy has none"),
    ],
)
def test_what_is_refused(shared: list[str], own: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_sweep([config(shared, *own)])
