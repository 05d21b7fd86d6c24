import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from sae_sweep.config.files import config_folder, config_of
from sae_sweep.config.reading import member_config
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.plan.costs import pass_cost
from sae_sweep.plan.groups import BankPlan, Group, plan_sweep
from sae_sweep.plan.members import member_identity
from sae_sweep.plan.memory import PROCESS_BYTES, peak, phases
from sae_sweep.plan.placement import plan_passes
from sae_sweep.plan.sizes import block_bytes, member_parameters, model_bytes


@cache
def config(*overrides: str) -> MemberConfig:
    return config_of(overrides)


def composed(*overrides: str) -> MemberConfig:
    """Of an experiment, by Hydra."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return member_config(compose("config", list(overrides)))


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_sweep([config(*overrides)])
    return str(caught.value)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """What planning reads of a model: a config.json, and that there are weights."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 16}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "intermediate_size": 80, "vocab_size": 99}))
    (tmp_path / "model.safetensors").touch()
    return tmp_path


def test_a_member_is_resolved() -> None:
    (member,) = plan_sweep([config("sae=topk", "sae.k=8", "sae.expansion=4")]).members
    assert (member.d, member.width, member.label) == (128, 512, "topk-k_8-x4")
    assert member.site.hook == "blocks.2.hook_resid_post"
    assert member.schedule.total_steps == 2_000_000 // 1024
    assert len(member.identity) == 16


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "output_dir=x",
        "dry_run=true",
        "model.device=cpu",
        "model.name=x",
        "tracking=none",
        "tracking.log_every=7",
        "launcher.memory_gb=80",
        "launcher.host_memory_gb=200",
        "launcher.devices=8",
        "launcher.device_flops=1e14",
    ],
)
def test_runtime_keys_are_not_part_of_what_a_member_is(override: str) -> None:
    assert member_identity(config(override)) == member_identity(config())


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "sae.l1=0.1",
        "site.layer=1",
        "training.lr=1e-3",
        "training.tokens=3e6",
        "data.seed=1",
        "model.dtype=bfloat16",
    ],
)
def test_every_other_key_is(override: str) -> None:
    assert member_identity(config(override)) != member_identity(config())


DEMO = {  # identities of +experiment=demo, as version 1 of sweep.json had them
    "gated": "522954d948cf8b72 d1412750af8f4976 d91498745f6ffc37 451d791fb7e0dd97",
    "standard": "3f24acf10876d485 fc1935d45ca3ce6c af36b552baddbb74 c61a4211558c6349",
    "standard_april": "d40eebc72e4cab4b 724c30b3d7cf5b2a 9e6bf7e40806f727 05455da6e0165709",
    "topk": "c2d60b44dc30fb80 cbec4188c782f793 89c792c4535cf15a cbfa5e8b5a334b67",
}


def test_members_of_old_sweeps_are_known_again() -> None:
    for sae, identities in DEMO.items():
        knob = "sae.k" if sae == "topk" else "sae.l0"
        former = ("data.max_norm_ratio=null", "training.lr=6e-3", "training.lr_decay_fraction=0.5")
        shared = ("+experiment=demo", *former, f"sae={sae}_paper")
        asked = [composed(*shared, f"{knob}={value}") for value in (6, 16, 40, 96)]
        assert [member_identity(one) for one in asked] == identities.split()
        label = f"{sae}-{knob.removeprefix('sae.')}_6-x8"
        assert plan_sweep(asked).members[0].label == label


def test_a_member_asked_for_twice_is_one() -> None:
    twice = [
        config("sae.width=2048"),
        config("sae.width=2048", "sae.expansion=4"),
        config("sae.width=2048", "name=sweep"),
    ]
    assert len(plan_sweep(twice).members) == 1


def test_members_share_a_group_whatever_their_sae_site_budget_or_seed() -> None:
    asked = [
        config(),
        config("sae=topk"),
        config("site.layer=1"),
        config("sae.width=64"),
        config("training.lr=1e-3"),
        config("seed=3"),
        config("training.batch_size=256"),
        config("training.tokens=1e6"),
        config("site=mlp_out", "site.layer=1"),
    ]
    (group,) = plan_sweep(asked).groups
    assert group.hooks == ("blocks.2.hook_resid_post", "blocks.1.hook_resid_post", "blocks.1.hook_mlp_out")
    assert len(group.members) == len(asked)


@pytest.mark.parametrize("override", ["data.seed=1", "data.context=64", "model.dtype=float64", "evaluation.tokens=2e5"])
def test_what_determines_the_stream_parts_groups(override: str) -> None:
    assert len(plan_sweep([config(), config(override)]).groups) == 2


def test_a_bank_has_one_site_one_structure_and_one_batch_size() -> None:
    asked = [
        config("sae.l1=0.1"),
        config("sae=standard"),
        config("sae.l1=0.2", "sae.width=64"),
        config("sae=standard_april"),
        config("sae.l1=0.1", "training.batch_size=256"),
        config("sae.l1=0.1", "site.layer=0"),
        config("sae.l1=0.1", "sae.input_scale=unit"),
    ]
    (group,) = plan_sweep(asked).groups
    assert [len(bank.members) for bank in group.banks] == [2, 1, 1, 1, 1, 1]
    assert all(member.site == bank.site for bank in group.banks for member in bank.members)


def test_members_can_be_left_out_or_renamed() -> None:
    plan = plan_sweep([config(), config("sae=topk")])
    gated, topk = plan.members
    assert [member.label for member in plan.without([gated.identity]).members] == [topk.label]
    assert plan.without([gated.identity, topk.identity]).groups == ()
    renamed = plan.labelled({gated.identity: "a", topk.identity: "b"})
    assert [member.label for member in renamed.members] == ["a", "b"]
    assert [group.key for group in renamed.groups] == [group.key for group in plan.groups]


def test_a_local_folder_says_what_it_is_whatever_the_yaml_says(model_folder: Path) -> None:
    overrides = ("model=gemma-7b", f"model.path={model_folder}", "site.layer=1", "sae.width=64")
    (member,) = plan_sweep([config(*overrides)]).members
    assert (member.d, member.width) == (32, 64)
    assert member.config.model.d_model is None
    assert refusal(*overrides, "site.layer=20") == "site.layer=20 is beyond the model: 0 to 2"


def test_sites_of_another_width(model_folder: Path) -> None:
    model = ("model=local", f"model.path={model_folder}", "sae.expansion=2")
    widths = {
        kind: plan_sweep([config(*model, f"site={kind}")]).members[0].d for kind in ("mlp_out", "mlp_post", "attn_z")
    }
    assert widths == {"mlp_out": 32, "mlp_post": 80, "attn_z": 64}
    (member,) = plan_sweep([config(*model, "site.hook=blocks.0.mlp.hook_post")]).members
    assert member.width == 160
    (member,) = plan_sweep([config(*model, "site=attn_z", "site.width=24")]).members
    assert (member.d, member.width) == (24, 48), "heads of another size, of which config.json does not say"


def test_a_crosscoder_is_planned_at_all_of_its_sites() -> None:
    plan = plan_sweep([config("site=mlp_out", "site.across=[0,2,blocks.3.hook_resid_mid]", "sae=topk")])
    (member,), hooks = plan.members, ("blocks.0.hook_mlp_out", "blocks.2.hook_mlp_out", "blocks.3.hook_resid_mid")
    assert plan.groups[0].hooks == hooks
    assert (member.d, member.d_out, member.width) == (384, 384, 2048), "an expansion is of one site"
    assert member.widths == dict.fromkeys(hooks, 128)
    assert member.label == "topk_crosscoder-l0_32-x16"


def test_a_word_is_what_it_stands_for() -> None:
    """A member that is asked for in words is the one that is planned."""
    for word, value in ((("site=clt",), "site.across=[0,1,2,3]"), (("model.dtype=auto",), "model.dtype=float16")):
        asked = config("sae=batchtopk", *word)
        assert member_identity(asked) == member_identity(config("sae=batchtopk", *word, value))
        assert plan_sweep([asked]).members[0].identity == member_identity(asked)


def test_a_cross_layer_transcoder_has_latents_of_each_layer() -> None:
    """Of the demo model's four blocks: a latent of layer l has 4 - l decoder rows, ten for four latents."""
    overrides = ("sae=batchtopk", "sae.width=64", "training.batch_size=64")
    plan = plan_sweep([config("site=clt", *overrides), config("site=clt", "site.across=[0,1,2,3]", *overrides)])
    (member,) = plan.members  # all is those
    assert member.label == "batchtopk_clt-l0_32-w64"
    assert (member.d, member.d_out, member.width) == (4 * 128, 4 * 128, 4 * 64)
    ends = ("mlp.hook_in", "hook_mlp_out")
    assert member.site.hooks == tuple(f"blocks.{layer}.{end}" for layer in range(4) for end in ends)
    assert member.widths == dict.fromkeys(member.site.hooks, 128)
    assert member.parameters["W_dec"] == (10 * 64, 128)
    assert member_parameters(member) == 4 * 64 * (128 + 1) + 10 * 64 * 128 + 4 * 128
    assert (member.encoder_numbers, member.decoder_numbers) == (4 * 64 * 128, 10 * 64 * 128)
    assert (member.resolved.sae.width, member.resolved.site.across) == (64, [0, 1, 2, 3])
    several = plan_sweep([config("site=clt", *overrides, f"seed={seed}") for seed in (0, 1)])
    assert [len(chunk.members) for chunk in several.groups[0].banks[0].chunks()] == [1, 1]


def test_a_transcoder_is_planned_by_both_of_its_widths() -> None:
    plan = plan_sweep(
        [config("site=resid_mid", "site.output=mlp_post", "sae=topk", f"sae.skip={s}") for s in ("false", "true")]
    )
    plain, skip = plan.members
    hooks = ("blocks.2.hook_resid_mid", "blocks.2.mlp.hook_post")
    assert plan.groups[0].hooks == plain.site.hooks == hooks
    assert (plain.d, plain.width, plain.widths) == (128, 2048, dict(zip(hooks, (128, plain.d_out), strict=True)))
    assert plain.d_out > 128
    assert member_parameters(plain) == 2048 * (128 + 1) + (2048 + 1) * plain.d_out
    assert member_parameters(skip) == member_parameters(plain) + 128 * plain.d_out
    assert len(plan.groups[0].banks) == 2


def test_toy_data_is_planned_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(_: object) -> None:
        raise AssertionError("looked at a model")

    for name in (
        "sae_sweep.plan.members.model_facts",
        "sae_sweep.plan.members.own_facts",
        "sae_sweep.plan.sizes.model_facts",
    ):
        monkeypatch.setattr(name, looked)
    asked = (
        config("data=toy", "sae.expansion=2"),
        config("data=toy", "sae=topk", "site=mlp_out", "data.toy.dimensions=256"),
    )
    (group,) = plan_sweep(asked).groups
    assert [(member.site.hook, member.d) for member in group.members] == [("toy", 256), ("toy", 256)]
    assert (group.members[0].width, group.hooks) == (512, ("toy",))
    (one,) = plan_passes(group, None, None)
    (device,) = pass_cost(one).devices
    assert (model_bytes(group), device.model_flops, device.judging_flops) == (0, 0, 0)
    assert block_bytes(group) == 256 * 128 * 256 * 4


def test_processes_that_step_small_members_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")

    def others(*overrides: str, members: int = 4) -> dict[str, int]:
        shared = ("model.device=cpu", "training.batch_size=4096", *overrides)
        configs = [config("data=toy", "sae=topk", f"sae.k={k}", *shared) for k in range(1, members + 1)]
        training = next(one for one in phases(*_whole(configs)) if one.phase == "training")
        return {name: size for name, size in training.held.items() if "other processes" in name}

    small = "sae.width=1024"
    block = 256 * 128 * 256 * 4
    assert others(small) == {"block of other processes": block, "other processes": 2 * PROCESS_BYTES}
    assert others(small, members=2)["other processes"] == PROCESS_BYTES, "one for each part but the first"
    assert others("sae.width=1025") == {}, "above what a core's cache holds"
    assert others(small, members=1) == others(small, "launcher.memory_gb=4") == {}
    assert others(small, "model.device=cuda") == {}


def _whole(configs: list[MemberConfig]) -> tuple[Group, Sequence[BankPlan]]:
    (group,) = plan_sweep(configs).groups
    return group, group.banks


def test_a_site_kind_means_nothing_to_toy_data() -> None:
    assert member_identity(config("data=toy", "site=mlp_out")) == member_identity(config("data=toy"))


@pytest.mark.parametrize(
    "override",
    [
        "data.toy.dimensions=64",
        "data.toy.latents=64",
        "data.toy.active=3",
        "data.toy.decay=1",
        "data.toy.correlated=false",
        "data.toy.noise=0.1",
    ],
)
def test_what_toy_data_is_determines_its_stream(override: str) -> None:
    assert len(plan_sweep([config("data=toy"), config("data=toy", override)]).groups) == 2


def test_the_estimate_of_a_gemma_group() -> None:
    gemma = ("+experiment=gated_gemma", "sae=gated", "sae.width=131072", "model.device=cuda")
    (group,) = plan_sweep([composed(*gemma, "sae.l1=1e-3"), composed(*gemma, "sae.l1=8e-4")]).groups
    (one,) = plan_passes(group, None, None)
    (device,), fullest = pass_cost(one).devices, peak(group, group.banks)
    parameters = 2 * 131072 * 3072 + 3 * 131072 + 3072
    assert one.waves[0].state_bytes == 2 * 12 * parameters
    step = fullest.held["steps"]
    assert fullest.phase == "training"
    assert 4096 * 131072 * 27 + 8 * parameters < step < 1.05 * (4096 * 131072 * 27 + 8 * parameters)
    assert fullest.total - step > one.waves[0].state_bytes + model_bytes(group) + block_bytes(group)
    assert 8.4e9 * 2 < model_bytes(group) < 8.6e9 * 2, "Gemma-7B has 8.54 billion parameters"
    assert block_bytes(group) == 256 * 1024 * 3072 * 2
    assert device.encoder_flops == 2 * 1.23e9 * 2 * 131072 * 3072
    assert device.dense_flops == 6 * device.encoder_flops
    assert 2 * 5.8e9 < device.model_flops / pass_cost(one).tokens < 2 * 6.8e9, "21 of 28 blocks"


@pytest.mark.parametrize("where", ["dtype", "torch_dtype", "text_config"])
def test_a_dtype_of_the_checkpoints_own(where: str, model_folder: Path) -> None:
    """It is resolved before identities are: the same member as the one that names it."""
    entries = json.loads((model_folder / "config.json").read_text())
    stated = {"text_config": {"dtype": "bfloat16"}} if where == "text_config" else {where: "bfloat16"}
    (model_folder / "config.json").write_text(json.dumps(entries | stated))
    asked = ("model=local", f"model.path={model_folder}", "sae.l0=8")
    own, named, other = (
        plan_sweep([config(*asked, f"model.dtype={dtype}")]).members[0] for dtype in ("auto", "bfloat16", "float32")
    )
    assert own.config.model.dtype == own.resolved.model.dtype == "bfloat16"
    assert own.identity == named.identity != other.identity


def test_a_dtype_that_nothing_states_is_refused(model_folder: Path) -> None:
    asked = ("model=local", "model.dtype=auto", "sae.l0=8")
    assert "config.json does not say it" in refusal(*asked, f"model.path={model_folder}")
    assert "planning uses no network" in refusal(*asked, "model.path=some-org/some-model")
    assert "has no model" in refusal("data=toy", "site.layer=null", "model.dtype=auto")
