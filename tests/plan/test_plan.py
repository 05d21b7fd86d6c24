import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from sae_sweep.config.files import config_folder
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
        asked = [config("+experiment=demo", f"sae={sae}", f"{knob}={value}") for value in (6, 16, 40, 96)]
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


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.tokens=0", "training.tokens=0 must be above 0"),
        ("training.tokens=100", "training.tokens=100 is less than one step, training.batch_size=1024"),
        ("training.batch_size=0", "training.batch_size=0 must be at least 1"),
        ("training.batch_size=40000", "data.block_rows x data.context = 256 x 128 = 32768"),
        ("training.lr=0", "training.lr=0 must be above 0"),
        ("training.beta1=1", "training.beta1=1 must be from 0 to below 1"),
        ("training.beta2=-0.1", "training.beta2=-0.1 must be from 0 to below 1"),
        ("training.lr_decay_fraction=1.5", "training.lr_decay_fraction=1.5 must be from 0 to 1"),
        ("training.lr_warmup_steps=-1", "training.lr_warmup_steps=-1 must be at least 0"),
        ("training.clip=-1", "training.clip=-1 must be at least 0"),
        ("data.context=1", "data.context=1 must be at least 2"),
        ("data.context=100000", "data.context=100000: demo reads rows of at most "),
        ("data.bos=maybe", "data.bos=maybe is not one of auto, always, never"),
        ("data.kind=nope", "data.kind=nope is not one of demo, hub, text, tokens, toy"),
        ("data.kind=toy", "data.kind=toy needs data.toy; data=toy sets both"),
        ("data.max_norm_ratio=1", "data.max_norm_ratio=1 must be above 1"),
        ("data.path=x", "data.path=x is not read with data.kind=demo (it is with hub, text, tokens); leave it null"),
        ("data=text", "data.path is needed with data.kind=text"),
        ("evaluation.positions=some", "evaluation.positions=some is not one of counted, all"),
        ("evaluation.tokens=100", "evaluation.tokens=100 is less than one row, data.context=128; raise it"),
        ("evaluation.every=0.5", "evaluation.every=0.5 must be at least 1"),
        ("model.dtype=int8", "model.dtype=int8 is not one of float32, bfloat16, float16, float64"),
        ("model.backend=jax", "model.backend=jax is not one of hf, transformer_lens"),
        ("model.device=gpu", "model.device=gpu is not auto, cpu, cuda or cuda:N"),
        ("tracking.mode=on", "tracking.mode=on is not one of online, offline, none"),
        ("tracking.log_every=0", "tracking.log_every=0 must be at least 1"),
        ("launcher.memory_gb=0", "launcher.memory_gb=0 must be above 0"),
        ("launcher.host_memory_gb=-1", "launcher.host_memory_gb=-1 must be above 0"),
        ("launcher.devices=0", "launcher.devices=0 must be at least 1"),
        ("launcher.hosts=0", "launcher.hosts=0 must be at least 1"),
        ("launcher.device_flops=0", "launcher.device_flops=0 must be above 0"),
        ("launcher.hosts=2", "launcher.devices=1 cannot be spread evenly over launcher.hosts=2"),
        ("seed=-1", "seed=-1 must be from 0 to below 2^31"),
        ("seed=9999999999999", "must be from 0 to below 2^31"),
        ("site.layer=4", "site.layer=4 is beyond the model: 0 to 3"),
        ("sae.l0=5000", "sae.l0=5000 must be above 0 and at most the width, 2048 latents"),
        ("sae.expansion=0", "sae.expansion=0 gives no latent (d = 128); it must give at least 1"),
        ("sae.width=-4", "sae.width=-4 gives no latent"),
        ("name=../elsewhere", "name='../elsewhere' must be a plain folder name"),
        ("name=a/b", "must be a plain folder name"),
        ("name=.hidden", "must be a plain folder name"),
        ("sae.skip=true", "sae.skip=true is a transcoder's; give site.output too, or choose site=mlp"),
        ("site.output=resid_post", "site.output=resid_post is what is read; leave it null to reconstruct that"),
        ("site.output=resid_pre", "the model computes blocks.2.hook_resid_pre before blocks.2.hook_resid_post"),
        ("site.across=[1]", "site.across=[1]: a crosscoder has several sites, each once; give at least two"),
        ("site.across=[1,1]", "site.across=[1, 1]: a crosscoder has several sites, each once"),
        ("site.across=[1,9]", "site.layer=9 is beyond the model: 0 to 3"),
        ("site.across=2", "site.across=2 is not a list of layers or hook names or null"),
        ("site.across=[blocks.1.hook_mlp_out,blocks.1.mlp.hook_post]", "sites of a crosscoder have one known width"),
        ("site.output=mlp", "site.output=mlp is no known kind; give one of resid_pre"),
        ("site.width=7", "site.width=7: blocks.2.hook_resid_post has 128 numbers per position; leave it out"),
        (
            "site.hook=hook_embed",
            "site.hook=hook_embed is of no known kind, so its width is needed too: add site.width=...",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(override: str, message: str) -> None:
    refused = refusal(override)
    assert message in refused
    assert "\n" not in refused


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "sae.lookup=learned",
            "sae.lookup=learned is an autoencoder's at one site; take none with site.output=mlp_out",
        ),
        ("data.max_norm_ratio=3", "data.max_norm_ratio=3 drops other tokens at each site"),
        *(
            (
                f"training.objective={name}",
                f"training.objective={name} is an autoencoder's at one site; take local with site.output=mlp_out",
            )
            for name in ("e2e", "e2e_downstream", "kl_mse")
        ),
    ],
)
def test_what_transcoders_cannot_have_is_refused(override: str, message: str) -> None:
    refused = refusal("site=mlp", override)
    assert message in refused
    assert "\n" not in refused


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("site.layer=1", "site.across=[0, 1] says which sites; leave site.layer null"),
        ("site.output=mlp_out", "leave site.output null"),
        ("sae.skip=true", "sae.skip=true is a transcoder's"),
        ("sae.lookup=frozen", "sae.lookup=frozen is an autoencoder's at one site; take none with site.across=[0, 1]"),
        ("data.max_norm_ratio=3", "leave it null with site.across=[0, 1]"),
        (
            "training.objective=e2e",
            "training.objective=e2e is an autoencoder's at one site; take local with site.across=[0, 1]",
        ),
    ],
)
def test_what_crosscoders_cannot_have_is_refused(override: str, message: str) -> None:
    assert message in refusal("site.across=[0,1]", override)


@pytest.mark.parametrize(
    ("site", "named"), [("site=mlp", "site.output=mlp_out"), ("site.across=[0,1]", "site.across=[0, 1]")]
)
def test_members_of_several_places_begin_from_no_other(site: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "sae_weights.safetensors").touch()
    said = f"init_from={tmp_path} is an autoencoder's at one site; leave it null with {named}"
    assert refusal(site, f"init_from={tmp_path}") == said


def test_a_crosscoder_is_planned_at_all_of_its_sites() -> None:
    plan = plan_sweep([config("site=mlp_out", "site.across=[0,2,blocks.3.hook_resid_mid]", "sae=topk")])
    (member,), hooks = plan.members, ("blocks.0.hook_mlp_out", "blocks.2.hook_mlp_out", "blocks.3.hook_resid_mid")
    assert plan.groups[0].hooks == hooks
    assert (member.d, member.d_out, member.width) == (384, 384, 2048), "an expansion is of one site"
    assert member.widths == dict.fromkeys(hooks, 128)
    assert member.label == "topk_crosscoder-l0_32-x16"


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


def test_k_beyond_the_width_is_refused() -> None:
    assert "sae.k=99" in refusal("sae=topk", "sae.k=99", "sae.width=64")


def test_data_must_exist(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert plan_sweep([config("data=text", f"data.path={tmp_path}/*.txt")])
    assert plan_sweep([config("data=text", f"data.path={tmp_path}/a.txt")])
    assert plan_sweep([config("data=tokens", "data.path=someone/tokens")]), "a hub id is not looked up"
    assert refusal("data=tokens", "data.path=missing.npz") == "data.path=missing.npz does not exist"
    assert "data.path=missing.txt does not exist" in refusal("data=text", f"data.path=[{tmp_path}/a.txt,missing.txt]")
    assert "data.heldout_path=gone" in refusal("data=text", f"data.path={tmp_path}/a.txt", "data.heldout_path=gone")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.kind=text", "data.toy is not read with data.kind=text (it is with toy); leave it null"),
        ("data.toy=null", "data.kind=toy needs data.toy; data=toy sets both"),
        ("data.toy.dimensions=0", "data.toy.dimensions=0 must be at least 1"),
        ("data.toy.latents=0", "data.toy.latents=0 must be at least 1"),
        ("data.toy.active=0", "data.toy.active=0 must be above 0 and at most data.toy.latents=512"),
        ("data.toy.active=513", "data.toy.active=513 must be above 0 and at most data.toy.latents=512"),
        ("data.toy.decay=1.1", "data.toy.decay=1.1 must be above 0 and at most 1"),
        ("data.toy.noise=-0.5", "data.toy.noise=-0.5 must not be negative"),
        ("data.path=x", "data.path=x is not read with data.kind=toy (it is with hub, text, tokens); leave it null"),
        ("data.max_norm_ratio=2", "data.max_norm_ratio=2 is not read with data.kind=toy; leave it null"),
        ("data.cache=x", "data.cache=x is not read with data.kind=toy; leave it null"),
        ("model.path=x", "model.path=x is not read with data.kind=toy, which has no model"),
        ("model=gpt2", "model.path=openai-community/gpt2 is not read with data.kind=toy, which has no model"),
        ("site.output=mlp_out", "site.output=mlp_out is not read with data.kind=toy, which has no model"),
        ("site.layer=1", "site.layer=1 is not read with data.kind=toy, which has no model"),
        ("site.hook=hook_embed", "site.hook=hook_embed is not read with data.kind=toy, which has no model"),
        ("sae.lookup=learned", "sae.lookup=learned looks tokens up, and data.kind=toy has none; take none"),
    ],
)
def test_what_toy_data_cannot_be_is_refused(override: str, message: str) -> None:
    assert refusal("data=toy", override) == message


def test_toy_data_is_planned_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(_: object) -> None:
        raise AssertionError("looked at a model")

    for name in (
        "sae_sweep.plan.members.model_facts",
        "sae_sweep.plan.members.model_folder",
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


@pytest.mark.parametrize("override", ["name=other", "output_dir=elsewhere", "dry_run=true", "model.device=cpu"])
def test_a_sweep_has_one_of_what_is_the_whole_sweeps(override: str) -> None:
    with pytest.raises(ConfigError, match="a whole sweep has one"):
        plan_sweep([config(), config(override, "seed=1")])


def test_the_estimate_of_a_gemma_group() -> None:
    gemma = ("+experiment=gated_gemma", "sae=gated", "sae.width=131072", "model.device=cuda")
    (group,) = plan_sweep([config(*gemma, "sae.l1=1e-3"), config(*gemma, "sae.l1=8e-4")]).groups
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
