from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sae_sweep.architectures.topk.facts import TopKConfig
from sae_sweep.config.files import config_folder, config_of, saved_config
from sae_sweep.config.reading import config_entries, flat_entries, known_keys, member_config, unknown_key
from sae_sweep.config.schema import MemberConfig, ToyConfig
from sae_sweep.config.values import count, finite
from sae_sweep.errors import ConfigError

GROUPS = ("model", "site", "data", "sae", "training", "evaluation", "tracking", "launcher")
FILES = sorted(config_folder().glob("*/*.yaml"))


@cache
def composed(*overrides: str) -> str:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return OmegaConf.to_yaml(compose("config", list(overrides)))


def config(*overrides: str, **values: Any) -> MemberConfig:
    """The default config with some values set, by dotted key."""
    entries = OmegaConf.create(composed(*overrides))
    for key, value in values.items():
        OmegaConf.update(entries, key.replace("__", "."), value, force_add=True)
    return member_config(entries)


def refusal(*overrides: str, **values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config(*overrides, **values)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.parent.name in GROUPS], ids=lambda f: f"{f.parent.name}-{f.stem}"
)
def test_every_option_of_every_group_is_read_with_and_without_hydra(file: Path) -> None:
    asked = [f"{file.parent.name}={file.stem}", *(["model.path=somewhere"] if file.stem == "local" else [])]
    asked += ["training.lr=1e-3", "training.milestones=[1e5,1e6]", "seed=3", "data.name=null"]
    assert config_of(asked) == config(*asked)


def test_a_config_is_made_from_what_differs_alone() -> None:
    made = config_of({"sae": "topk", "sae.k": 8, "data": "toy", "data.toy.latents": 64, "training.tokens": 10**6})
    assert made == config("sae=topk", "sae.k=8", "data=toy", "data.toy.latents=64", "training.tokens=1e6")
    assert config_of({}) == config(), "and nothing is left of the one before"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sae": "tpk"}, "sae=tpk is not one of batchtopk, batchtopk_paper, frozen_decoder, frozen_encoder, gated,"),
        ({"sae.k": 3}, "sae.k: gated has no such key"),
        ({"data.toy.latents": 3}, "data.toy.latents: data.toy is null here; data=toy gives it keys"),
        ({"trainig.lr": 3}, "trainig.lr: no such key; did you mean training.lr?"),
    ],
)
def test_what_no_file_has_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(asked)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("file", [*FILES, config_folder() / "config.yaml"], ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_every_key_in_the_config_files_has_a_comment(file: Path) -> None:
    text = file.read_text()
    assert text.startswith("#")
    lines = text.split("\nhydra:")[0].splitlines()
    bare = [line for line in lines if ": " in line and "#" not in line and not line.lstrip().startswith("- ")]
    assert bare == []
    assert yaml.safe_load(text)


def test_config_files_state_every_key_and_no_other() -> None:
    stated = OmegaConf.to_container(OmegaConf.create(composed()))
    assert isinstance(stated, dict)
    toy = OmegaConf.to_container(OmegaConf.create(composed("data=toy")))
    assert isinstance(toy, dict)
    found = {key for entries in (stated, toy) for key in flat_entries(entries) if not key.startswith("sae.")}
    assert found - {"data.toy"} == {key for key in known_keys() if key.split(".")[0] != "sae"}
    assert stated["data"]["toy"] is None


def test_hub_models_state_their_sizes() -> None:
    gemma = config("model=gemma-7b").model
    assert (gemma.d_model, gemma.n_layers, gemma.n_heads, gemma.d_head, gemma.d_mlp) == (3072, 28, 16, 256, 24576)
    for name in ("gemma-2-2b", "pythia-2.8b", "pythia-70m", "gpt2"):
        model = config(f"model={name}").model
        sizes = (model.d_model, model.n_layers, model.n_heads, model.d_head, model.d_mlp, model.vocab_size)
        assert all(sizes), name
        assert "/" in str(model.path)


def test_values_get_their_types() -> None:
    made = config("sae=topk", sae__k=16, training__tokens=2_000_000, training__batch_size=512.0, training__lr=1)
    assert isinstance(made.sae, TopKConfig)
    assert made.sae.k == 16
    assert (made.training.tokens, made.training.lr) == (2e6, 1.0)
    assert all(isinstance(value, float) for value in (made.training.tokens, made.training.lr))
    assert made.training.batch_size == 512
    assert isinstance(made.training.batch_size, int)
    assert config(name=2024).name == "2024"


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("training__lr", "abc", "training.lr=abc is not a number or null"),
        ("training__lr", True, "training.lr=true is not a number or null"),
        ("training__tokens", None, "training.tokens=null is not a number"),
        ("training__tokens", float("inf"), "training.tokens=inf is not a number"),
        ("training__batch_size", 1.5, "training.batch_size=1.5 is not a whole number"),
        ("training__batch_size", "1e3", "training.batch_size=1e3 is not a whole number"),
        ("seed", [1, 2], "seed=[1, 2] is not a whole number"),
        ("dry_run", 1, "dry_run=1 is not true, false or members"),
        ("sae__resample", "yes", "sae.resample=yes is not true or false"),
        ("model__revision", 1.5, "model.revision=1.5 is not text (quote it) or null"),
        ("data__path", 3, "data.path=3 is not a path or a list of paths"),
        ("data__toy", 5, "data.toy=5 is a group of keys; give one, like data.toy.dimensions"),
        ("training", 5, "training=5 is a group of keys; give one, like training.tokens"),
        (
            "sae__architecture",
            "nope",
            "sae.architecture=nope is not one of batchtopk, gated, hierarchical_topk, jumprelu, matryoshka, ortsae,"
            " p_anneal, standard, temporal, topk",
        ),
    ],
)
def test_a_wrong_type_is_refused_in_one_line(key: str, value: Any, wanted: str) -> None:
    assert refusal(**{key: value}) == wanted


def test_an_unknown_key_names_the_nearest() -> None:
    assert refusal(training__lrr=1) == "training.lrr: no such key; did you mean training.lr?"
    assert refusal(speed=1).startswith("speed: no such key")
    assert str(unknown_key("data.contxt", None)).endswith("did you mean data.context?")


def test_a_key_of_another_architecture_names_the_keys_this_one_has() -> None:
    message = refusal("sae=gated", sae__k=8)
    assert message.startswith(
        "sae.k: gated has no such key (it is batchtopk, hierarchical_topk, matryoshka, ortsae, temporal, topk's); its"
        " keys are architecture, expansion,"
    )
    assert "l1" in message
    assert "gated, jumprelu, standard's" in str(unknown_key("sae.variant", "topk"))


def test_a_key_left_out_is_named() -> None:
    assert refusal("model=local") == "model.path is not given; give model.path=..."


def test_a_knob_together_with_l0_is_refused_and_neither_means_32() -> None:
    assert refusal(sae__l1=0.001, sae__l0=16) == (
        "sae.l1=0.001 and sae.l0=16 both set the sparsity; give one and leave the other null"
    )
    assert config().sae.l0 == 32
    assert config(sae__l1=0.5).sae.l0 is None
    assert config("sae=topk").sae.l0 == 32


def test_width_wins_over_expansion_and_hook_over_kind() -> None:
    wide = config(sae__width=64).sae
    assert (wide.width, wide.expansion) == (64, None)
    assert config(sae__width=64, sae__expansion=8) == config(sae__width=64)
    assert refusal(sae__expansion=None) == "sae.width and sae.expansion are both null; give one"
    site = config(site__hook="blocks.1.hook_resid_post").site
    assert (site.kind, site.hook) == (None, "blocks.1.hook_resid_post")


def test_an_interpolation_that_cannot_be_resolved_is_one_line() -> None:
    assert "cannot be resolved" in refusal(name="${nowhere}")


def test_a_saved_config_is_the_config_again() -> None:
    for sae in ("gated", "standard", "standard_april", "topk"):
        made = config(f"sae={sae}", training__lr=1e-5, data__path=["a", "b"])
        entries = config_entries(made)
        assert member_config(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(entries)))) == made
        assert member_config(entries) == made


def test_a_saved_config_that_is_cut_short_is_told_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("name: x\nmodel:\n  path: null\n")
    with pytest.raises(ConfigError, match=r"^\S+config.yaml is cut short, or of another version \(.* is not given"):
        saved_config(file)


def test_a_group_that_may_be_null() -> None:
    assert config().data.toy is None
    toy = config("data=toy", data__toy__latents=64.0).data.toy
    assert toy == ToyConfig(dimensions=256, latents=64, active=5.0, decay=0.99, correlated=True, noise=0.0)
    assert refusal("data=toy", data__toy__latents=None) == "data.toy.latents=null is not a whole number"
    assert refusal("data=toy", data__toy__latnts=3) == "data.toy.latnts: no such key; did you mean data.toy.latents?"
    assert (
        str(unknown_key("data.toy.latents", None)) == "data.toy.latents: data.toy is null here; data=toy gives it keys"
    )
    made = config("data=toy")
    assert member_config(config_entries(made)) == made


def test_known_keys_are_those_of_the_dataclasses() -> None:
    groups = [field.name for field in fields(MemberConfig) if is_dataclass(field.type)]
    assert sorted(groups) == sorted(GROUPS)
    assert {"seed", "model.path", "sae.k", "sae.l1", "sae.variant", "training.tokens"} <= set(known_keys())


def test_no_number_of_a_file_is_too_large_to_be_one() -> None:
    given = (1, 0.5, -(10**400), float("nan"), float("-inf"), None)
    assert [finite(value) for value in given] == [1, 0.5, None, None, None, None]


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (999, "999"), (1500, "1.5k"), (999_499, "999k"), (999_936, "1M"), (999_500_000, "1B"), (2e12, "2000B")],
)
def test_a_count_is_short_at_every_size(number: float, said: str) -> None:
    assert count(number) == said
