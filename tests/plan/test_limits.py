"""What cannot be trained is refused in planning, by its key."""

from pathlib import Path

import pytest

from sae_sweep.errors import ConfigError
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.limits import check_config
from tests.plan.test_plan import config, refusal


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
        ("data.kind=nope", "data.kind=nope is not one of activations, demo, given, hub, text, tokens, toy"),
        ("data.kind=toy", "data.kind=toy needs data.toy; data=toy sets both"),
        ("data.max_norm_ratio=1", "data.max_norm_ratio=1 must be above 1"),
        (
            "data.path=x",
            "data.path=x is not read with data.kind=demo (it is with activations, given, hub, text, tokens); leave it"
            " null",
        ),
        ("data=text", "data.path is needed with data.kind=text"),
        ("evaluation.positions=some", "evaluation.positions=some is not one of counted, all"),
        (f"name={'9' * 400}", "name=a number of 40"),
        ("evaluation.tokens=100", "evaluation.tokens=100 is less than one row, data.context=128; raise it"),
        ("evaluation.every=0.5", "evaluation.every=0.5 must be at least 1"),
        ("model.dtype=int8", "model.dtype=int8 is not one of float32, bfloat16, float16, float64, auto"),
        ("model.backend=jax", "model.backend=jax is not one of hf, transformer_lens"),
        ("model.device=gpu", "model.device=gpu is not auto, cpu, cuda or cuda:N"),
        ("model.device=mps", "model.device=mps: Apple's GPU has no float64, in which metrics are summed"),
        ("tracking.log_every=0", "tracking.log_every=0 must be at least 1"),
        ("launcher.memory_gb=0", "launcher.memory_gb=0 must be above 0"),
        ("launcher.host_memory_gb=-1", "launcher.host_memory_gb=-1 must be above 0"),
        ("launcher.devices=0", "launcher.devices=0 must be from 1 to 1024"),
        ("launcher.devices=100000", "launcher.devices=100000 must be from 1 to 1024"),
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
        ("site.across=[1,9]", "site.across=[1, 9] is beyond the model: 0 to 3"),
        ("site.across=2", "site.across=2 is not a list of layers or hook names, or all or null"),
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
        ("site.output=mlp_out", "the model computes blocks.0.hook_mlp_out before blocks.0.hook_resid_post"),
        ("sae.skip=true", "sae.skip=true is a transcoder's"),
        ("sae.lookup=frozen", "sae.lookup=frozen is an autoencoder's at one site; take none with site.across=[0, 1]"),
        (
            "training.objective=e2e",
            "training.objective=e2e is an autoencoder's at one site; take local with site.across=[0, 1]",
        ),
    ],
)
def test_what_crosscoders_cannot_have_is_refused(override: str, message: str) -> None:
    assert message in refusal("site.across=[0,1]", override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("sae.skip=true",), "sae.skip=true is not for cross-layer transcoders (site.across=[0, 1, 2, 3])"),
        (("sae.decoder_init=pca",), "sae.decoder_init=pca is not for cross-layer transcoders"),
        (
            ("sae=matryoshka",),
            "sae=matryoshka is not for cross-layer transcoders; take topk, batchtopk, jumprelu,",
        ),
        (("sae=ortsae",), "sae=ortsae is not for cross-layer transcoders"),
        (("sae=temporal",), "sae=temporal is not for cross-layer transcoders"),
        (("sae=hierarchical_topk",), "sae=hierarchical_topk is not for cross-layer transcoders"),
        (("sae=topk", "sae.groups=3"), "sae=topk_matryoshka is not for cross-layer transcoders"),
        (("sae=topk", "sae.k=10"), "sae.k=10: with topk as many latents of each layer fire"),
        (("sae=topk", "sae.l0=1"), "it is no multiple of 4 layers; take 4, or sae=batchtopk"),
        (("site.across=[2,1]",), "latents write to later layers alone; give each layer once, in the model's order"),
        (("site.across=[1]",), "give at least two"),
        (("site.across=[0,9]",), "site.across=[0, 9] is beyond the model: 0 to 3"),
        (("site.across=every",), "site.across=every is not a list of layers or hook names, or all or null"),
        (("site.output=blocks.3.hook_mlp_out",), "is one place; give the kind that each layer writes to, mlp_out"),
        (("site.layer=1",), "says which sites; leave site.layer null"),
        (("sae.lookup=learned",), "take none with site.across=[0, 1, 2, 3]"),
        (("sae.input_scale=whiten",), "site.across=[0, 1, 2, 3] is not for whitened inputs"),
        (("training.objective=e2e",), "take local with site.across=[0, 1, 2, 3]"),
        (("sae=topk", "sae.k=9000"), "at most the width, 8192 latents"),
    ],
)
def test_what_cross_layer_transcoders_cannot_have_is_refused(overrides: tuple[str, ...], message: str) -> None:
    refused = refusal("site=clt", *overrides)
    assert message in refused
    assert "\n" not in refused


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("training.objective=e2e", "training.objective=e2e"),
        ("site.across=[0,1]", "site.across=[0, 1]"),
        ("init_from=there", "init_from=there"),
    ],
)
def test_what_whitened_inputs_do_not_go_with(override: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(config("sae.input_scale=whiten", override))
    assert f"{named} is not for whitened inputs" in str(caught.value)


@pytest.mark.parametrize(
    ("site", "named"), [("site=mlp", "site.output=mlp_out"), ("site.across=[0,1]", "site.across=[0, 1]")]
)
def test_members_of_several_places_begin_from_no_other(site: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "sae_weights.safetensors").touch()
    said = f"init_from={tmp_path} is an autoencoder's at one site; leave it null with {named}"
    assert refusal(site, f"init_from={tmp_path}") == said


def test_k_beyond_the_width_is_refused() -> None:
    assert "sae.k=99" in refusal("sae=topk", "sae.k=99", "sae.width=64")


def test_components_are_of_what_is_reconstructed() -> None:
    """A transcoder from 384 numbers to 128 has 256 rows of them, however many it reads; two sites of 128 have 512."""
    asked = ("sae=pca", "sae.k=4", "sae.expansion=null")
    reads_more = (*asked, "site=mlp", "site.layer=1", "site.kind=mlp_post")
    assert "128 numbers have 128 components" in refusal(*reads_more, "sae.width=300")
    (member,) = plan_sweep([config(*reads_more, "sae.width=256")]).members
    assert (member.d, member.d_out, member.width) == (384, 128, 256)
    (member,) = plan_sweep([config(*asked, "site.across=[0,1]", "sae.width=512")]).members
    assert (member.d, member.width) == (256, 512)
    assert "256 numbers have 256 components" in refusal(*asked, "site.across=[0,1]", "sae.width=513")


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
        ("data.toy.zipf=-1", "data.toy.zipf=-1 must not be negative; null has decay in its place"),
        ("data.toy.roots=513", "data.toy.roots=513 must be from 1 to data.toy.latents=512"),
        ("data.toy.children=0", "data.toy.children=0 must be at least 1"),
        (
            "data.toy.exclusive=true",
            "data.toy.exclusive=true is of children, and data.toy.roots=null gives none; give roots=",
        ),
        ("data.toy.rank=0", "data.toy.rank=0 must be at least 1, and takes data.toy.correlated=true"),
        (
            "data.path=x",
            "data.path=x is not read with data.kind=toy (it is with activations, given, hub, text, tokens); leave it"
            " null",
        ),
        ("data.max_norm_ratio=2", "data.max_norm_ratio=2 is not read with data.kind=toy, which has no model"),
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


@pytest.mark.parametrize("override", ["name=other", "output_dir=elsewhere", "dry_run=true", "model.device=cpu"])
def test_a_sweep_has_one_of_what_is_the_whole_sweeps(override: str) -> None:
    with pytest.raises(ConfigError, match="a whole sweep has one"):
        plan_sweep([config(), config(override, "seed=1")])
