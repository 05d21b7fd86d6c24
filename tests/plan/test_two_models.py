"""Crosscoders over two models, planned: where they are, what they cost, which pairs cannot be."""

import json
import shutil
from pathlib import Path

import pytest

from sae_sweep.activations.cache_folder import cache_entries, cache_key
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.launch.dry_run import print_plan
from sae_sweep.model.second import models_of
from sae_sweep.plan.costs import pass_cost
from sae_sweep.plan.fingerprints import check_same, fingerprints, hashed
from sae_sweep.plan.groups import plan_sweep, stream_key
from sae_sweep.plan.members import member_identity, resolve_member
from sae_sweep.plan.memory import phases
from sae_sweep.plan.placement import plan_passes
from sae_sweep.plan.sizes import model_bytes
from tests.plan.test_costs import BLOCK, LOGITS

TOPK = ("sae=topk", "sae.k=3", "sae.width=40", "site.layer=1", "model.device=cpu")
PAIR = "site.models=[google/gemma-2-2b,google/gemma-2-2b-it@v2]"


def config(*overrides: str) -> MemberConfig:
    return config_of(overrides)


@pytest.fixture
def models(llama_folder: Path, tuned_folder: Path) -> str:
    return f"site.models=[{llama_folder},{tuned_folder}]"


def test_it_is_planned_in_both(models: str, llama_folder: Path, tuned_folder: Path) -> None:
    hooks = ("blocks.1.hook_resid_post", "models.1.blocks.1.hook_resid_post")
    plan = plan_sweep([config(*TOPK, models, "evaluation.later_sites=1", "data.context=16")])
    (member,), (group,) = plan.members, plan.groups
    assert group.hooks == hooks
    assert (member.d, member.d_out, member.width) == (64, 64, 40)
    assert member.widths == dict.fromkeys(hooks, 32)
    assert member.label == "topk_crosscoder-k_3-w40"
    assert member.watched == ("blocks.2.hook_resid_post", "models.1.blocks.2.hook_resid_post")
    assert member.config.model.path == member.config.model.name == str(llama_folder)
    assert [one.path for one in models_of(member.config)] == [str(llama_folder), str(tuned_folder)]


@pytest.mark.parametrize("model", ["model=local", "model=demo", "model=local model.path={first}"])
def test_the_first_is_the_model(models: str, llama_folder: Path, model: str) -> None:
    words = model.format(first=llama_folder).split()
    assert member_identity(config(*TOPK, models, "data.context=16", *words)) == member_identity(
        config(*TOPK, models, "data.context=16")
    )


def test_several_layers_of_both(models: str) -> None:
    (member,) = plan_sweep([config(*TOPK, models, "data.context=16", "site.layer=null", "site.across=[1,3]")]).members
    own = ["blocks.1.hook_resid_post", "blocks.3.hook_resid_post"]
    assert list(member.site.hooks) == [*own, *(f"models.1.{hook}" for hook in own)]
    assert member.d == 4 * 32


def test_each_pair_has_tokens_of_its_own(models: str, llama_folder: Path) -> None:
    both, twice, alone = (
        config(*TOPK, "data.context=16", *own)
        for own in (
            [models],
            [f"site.models=[{llama_folder},{llama_folder}]"],
            ["model=local", f"model.path={llama_folder}"],
        )
    )
    assert len({stream_key(each) for each in (both, twice, alone)}) == 3
    assert len({member_identity(each) for each in (both, twice, alone)}) == 3
    assert len({cache_key(each) for each in (both, twice, alone)}) == 3
    assert "second" not in cache_entries(alone)


def test_two_models_cost_twice(models: str, llama_folder: Path) -> None:
    """Up to the site in each, in training; in judging a clean pass of each, and at each site two ablations and the
    reconstruction."""
    read = (*TOPK, "data.context=16", "data.block_rows=32", "training.batch_size=64", "training.tokens=2000")
    pair, alone = (
        plan_sweep([config(*read, "evaluation.tokens=320", *own)]).groups[0]
        for own in ([models], ["model=local", f"model.path={llama_folder}"])
    )
    (device,) = pass_cost(plan_passes(pair, None, None)[0]).devices
    assert device.model_flops == 2 * 5 * 32 * 16 * 2 * BLOCK
    assert device.judging_flops == 320 * (2 * (4 * BLOCK + 3 * 2 * BLOCK + 4 * LOGITS) + 4 * 64 * 40)
    assert model_bytes(pair) == 2 * model_bytes(alone)
    held = [{one.phase: one.held for one in phases(each, each.banks)} for each in (pair, alone)]
    assert held[0]["training"]["model"] == 2 * held[1]["training"]["model"]
    assert held[0]["training"]["block of activations"] == 2 * held[1]["training"]["block of activations"]
    assert held[0]["judging"]["held-out activations"] > held[1]["judging"]["held-out activations"]


def test_hub_ids_are_planned_offline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second is as large as the first says, and of a revision of its own."""
    asked = config("model=gemma-2-2b", "model.revision=v1", PAIR, "sae=batchtopk", "sae.width=1024")
    plan = plan_sweep([asked])
    first, second = models_of(plan.members[0].config)
    assert (first.path, first.revision) == ("google/gemma-2-2b", "v1")
    assert (second.path, second.revision, second.d_model) == ("google/gemma-2-2b-it", "v2", 2304)
    assert plan.members[0].d == 2 * 2304
    print_plan(plan, tmp_path, [], here=False)
    assert "model gemma-2-2b and google/gemma-2-2b-it (hf, bfloat16" in capsys.readouterr().out


def test_other_weights_of_the_second_are_noticed(tmp_path: Path, llama_folder: Path) -> None:
    second = Path(shutil.copytree(llama_folder, tmp_path / "second"))
    asked = config(*TOPK, f"site.models=[{llama_folder},{second}]", "data.context=16")
    kept = hashed(fingerprints(asked))
    assert {key for key in kept if key.startswith("site")} == {
        "site.models",
        "site.models (the second's tokenizer)",
    }
    check_same(kept, asked, "it")
    (second / "model.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(ConfigError, match=r"^site.models=.*second: model.safetensors has changed from"):
        check_same(kept, asked, "it")


def smaller(folder: Path, source: Path, **own: int) -> Path:
    """What planning reads of a model that differs in some sizes."""
    folder.mkdir()
    entries = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**entries, **own}))
    shutil.copy(source / "model.safetensors", folder)
    return folder


def test_pairs_that_cannot_be(tmp_path: Path, llama_folder: Path, tuned_folder: Path) -> None:
    narrow = smaller(tmp_path / "narrow", llama_folder, hidden_size=16)
    short = smaller(tmp_path / "short", llama_folder, num_hidden_layers=1)
    missing = tmp_path / "missing"
    a, b = llama_folder, tuned_folder
    told = {
        f"[{a}]": f"site.models=[{a}]: one SAE is over two models",
        f"[{a},{b},{b}]": "one SAE is over two models",
        f"[{a},{missing}]": f"site.models=[{a}, {missing}]: model.path={missing}: no such folder",
        f"[{a},{narrow}]": "the first has 32 numbers at blocks.1.hook_resid_post and the second 16; give two of",
        f"[{a},{short}]": "the second has blocks 0 to 0, and no blocks.1.hook_resid_post",
        "both": "site.models=both is not a list of texts or null",
    }
    for models, message in told.items():
        with pytest.raises(ConfigError) as caught:
            plan_sweep([config(*TOPK, "data.context=16", f"site.models={models}")])
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.path=some/other", "its first is model.path=some/other; give that first, or leave that out"),
        ("model.adapter=x", "merge it into a model"),
        ("site.hook=models.1.blocks.1.hook_mlp_out", "give it as its model calls it, blocks.1.hook_mlp_out"),
        ("site.output=mlp_out", "site.output=mlp_out is a transcoder's; leave it null with site.models="),
        ("sae.lookup=frozen", "take none with site.models="),
        ("training.objective=e2e", "take local with site.models="),
        ("init_from=x", "leave it null with site.models="),
        ("sae.input_scale=whiten", "is not for whitened inputs"),
        ("data=toy", "site.models=[google/gemma-2-2b, google/gemma-2-2b-it@v2] is not read with data.kind=toy"),
    ],
)
def test_what_two_models_do_not_go_with(override: str, message: str) -> None:
    more = ["model.path=null", "site.layer=null"] if override == "data=toy" else []
    with pytest.raises(ConfigError) as caught:
        resolve_member(config("model=gemma-2-2b", "sae=gated", "sae.width=64", PAIR, override, *more), "")
    assert message in str(caught.value)
