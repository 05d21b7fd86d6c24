"""What config.yaml says: no key is null there for which a run takes a number, whatever the architecture."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from sae_sweep.config.files import config_folder, config_of
from sae_sweep.config.reading import config_entries, flat_entries, member_config
from sae_sweep.folder.provenance import resolved_entries
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.members import Member

RECIPES = sorted(file.stem for file in (config_folder() / "sae").glob("*.yaml"))
NOTHING = {
    *("init_from", "model.path", "model.revision", "model.adapter", "site.output", "site.across", "site.models"),
    *("model.device_map", "model.quantize"),
    "evaluation.every",
    *(f"data.{key}" for key in ("toy", "path", "weights", "name", "filter", "heldout_path", "heldout_split", "cache")),
    *("training.checkpoint_tokens", "training.milestones", "training.downstream_sites"),
    *(f"tracking.{key}" for key in ("mode", "project", "entity", "group", "tags", "notes")),
    *("launcher.memory_gb", "launcher.host_memory_gb", "launcher.device_flops"),
}
"""Null is what these are: none, or whatever the machine and its environment say."""
OTHER_WORDS = {"site.hook", "site.width", "sae.expansion"}
"""What another key says (kind and layer, width); both would be refused, or wrong at another site."""


def planned(*overrides: str) -> Member:
    return plan_sweep([config_of(overrides)]).members[0]


def nulls(member: Member) -> set[str]:
    entries = flat_entries(config_entries(member.resolved))
    return {key for key, value in entries.items() if value is None}


@pytest.mark.parametrize("sae", RECIPES)
def test_no_null_that_is_a_number(sae: str) -> None:
    member = planned(f"sae={sae}")
    knob = f"sae.{member.config.sae.knob()}"  # beside sae.l0 it would be a second one
    of_inputs = {"sae.bandwidth", "sae.threshold_init"} if member.config.sae.architecture == "jumprelu" else set()
    assert nulls(member) - of_inputs == {*NOTHING, *OTHER_WORDS, knob}
    measured = replace(member, measured={key.removeprefix("sae."): 0.25 for key in of_inputs})
    assert nulls(measured) == {*NOTHING, *OTHER_WORDS, knob}
    told = flat_entries(resolved_entries(measured))
    assert {key for key in (*OTHER_WORDS, *of_inputs, "evaluation.later_sites") if told[key] is None} == set()


def test_what_was_given_stands() -> None:
    member = replace(planned("sae=jumprelu", "sae.bandwidth=0.5"), measured={"bandwidth": 0.5, "threshold_init": 0.2})
    assert (member.resolved.sae.bandwidth, member.resolved.sae.threshold_init) == (0.5, 0.2)
    read_again = member_config(OmegaConf.create(config_entries(member.resolved)))
    assert read_again == replace(member.resolved, output_dir=read_again.output_dir)


def test_auxk_goes_with_what_is_reconstructed() -> None:
    """The residual is that of the targets: of 384 numbers here, where 128 are read; 2^round(log2(384 / 2))."""
    one = planned("sae=topk", "site=mlp", "site.layer=1", "site.output=mlp_post")
    assert (one.d, one.d_out) == (128, 384)
    assert one.resolved.sae.auxk == 256


@pytest.mark.parametrize("sae", ["topk", "batchtopk", "matryoshka"])
def test_a_narrow_one_is_read_again(sae: str) -> None:
    """As `eval` reads it: the power of two nearest 128 / 2 is more latents than it has."""
    one = planned(f"sae={sae}", "sae.k=2", "sae.l0=null", "sae.width=40")
    assert one.resolved.sae.auxk == 64
    (again,) = plan_sweep([member_config(OmegaConf.create(config_entries(one.resolved)))]).members
    assert (again.width, again.schedule) == (40, one.schedule)


def test_sites_that_are_compared_are_counted() -> None:
    one = planned("training.objective=e2e_downstream", "site.layer=1", "evaluation.later_sites=null")
    assert one.resolved.training.downstream_sites == len(one.later) > 0
    assert resolved_entries(one)["evaluation"]["later_sites"] == len(one.watched) > 0
