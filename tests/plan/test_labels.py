"""What members are called."""

import pytest

from sae_sweep.config.files import config_of
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.labels import base_label, new_labels, suffixed
from sae_sweep.plan.members import identity_entries


def labels(*asked: str) -> list[str]:
    """The names of a sweep's members, each given as `key=value key=value`."""
    configs = [config_of(words.split()) for words in asked]
    plan = plan_sweep(configs)
    return sorted(member.label for member in plan.members)


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        (("sae=gated", "sae.l1=6e-4"), "gated-l1_0.0006-x16"),
        (("sae=gated", "sae.l1=1e-5"), "gated-l1_1e-5-x16"),
        (("sae=topk", "sae.k=32"), "topk-k_32-x16"),
        (("sae=gated", "sae.width=16384"), "gated-l0_32-w16384"),
        (("sae=standard", "sae.l1=12345678"), "standard-l1_1.23457e7-x16"),
        (("sae=standard_april", "sae.l1=5"), "standard_april-l1_5-x16"),
        (("sae=standard", "sae.l0=12.5", "sae.expansion=2.5"), "standard-l0_12.5-x2.5"),
        (("site=mlp", "sae=topk", "sae.k=32"), "topk_transcoder-k_32-x16"),
        (("site=mlp", "sae=standard_april", "sae.skip=true"), "standard_april_skip_transcoder-l0_32-x16"),
    ],
)
def test_names(overrides: tuple[str, ...], label: str) -> None:
    assert base_label(config_of(overrides)) == label


def test_names_say_what_varies() -> None:
    grid = [
        f"sae=topk sae.k=16 site.layer={layer} training.lr={lr} seed={seed}"
        for layer in (1, 3)
        for lr in (1e-3, 3e-4)
        for seed in (0, 1)
    ]
    assert labels(*grid) == [
        f"topk-k_16-x16-L{layer}-lr_{lr}-s{seed}" for layer in (1, 3) for lr in ("1e-3", "3e-4") for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("seed=0", "seed=12345678", ["-s0", "-s12345678"]),
        ("seed=0", "seed=0 data.seed=1", ["-data.seed_0", "-data.seed_1"]),
        ("site=resid_pre site.layer=1", "site.layer=1", ["-resid_post", "-resid_pre"]),
        ("training.lr=1e-3", "seed=0", ["", "-lr_1e-3"]),
        ("training.tokens=2e6", "training.tokens=1.5e6", ["-tokens_1.5e6", "-tokens_2e6"]),
        ("sae.resample=true", "sae.resample=false", ["-resample_false", "-resample_true"]),
        ("site.layer=1", "seed=0", ["-L1", "-L2"]),
    ],
)
def test_each_axis_has_its_word(first: str, second: str, names: list[str]) -> None:
    assert labels(f"sae=gated {first}", f"sae=gated {second}") == [f"gated-l0_32-x16{name}" for name in names]


def test_what_two_kinds_differ_in_by_themselves_is_no_axis() -> None:
    assert labels("sae=gated training.lr=1e-3", "sae=topk training.lr=3e-4") == ["gated-l0_32-x16", "topk-l0_32-x16"]


def test_an_axis_of_one_kind_is_said_of_all() -> None:
    assert labels("sae=gated", "sae=topk seed=1", "sae=topk") == [
        *("gated-l0_32-x16-s0", "topk-l0_32-x16-s0", "topk-l0_32-x16-s1")
    ]


def test_a_hash_only_where_two_would_still_be_equal() -> None:
    plan = plan_sweep([config_of(["sae=topk", f"training.lr={lr}"]) for lr in ("1.0000001e-3", "1.0000002e-3", "2e-3")])
    first, second, other = plan.members
    assert first.label == f"topk-l0_32-x16-lr_1e-3-{first.identity[:4]}"
    assert second.label == f"topk-l0_32-x16-lr_1e-3-{second.identity[:4]}"
    assert other.label == "topk-l0_32-x16-lr_2e-3"
    assert suffixed("a", "0123456789abcdef", ["a-0123"]) == "a-01234"


def test_members_that_are_here_keep_their_names_and_new_ones_say_what_varies_with_them() -> None:
    old, new = plan_sweep([config_of([f"seed={seed}"]) for seed in (0, 1)]).members
    here = {"gated-l0_32-x16": {"identity": old.identity, "config": identity_entries(old.config)}}
    assert new_labels([old, new], here) == {old.identity: "gated-l0_32-x16", new.identity: "gated-l0_32-x16-s1"}
    assert new_labels([new], here) == {new.identity: "gated-l0_32-x16-s1"}


def test_a_name_is_no_longer_than_a_folder_may_be() -> None:
    keys = ("data.name", "data.field", "data.split")
    asked = [" ".join(["data=hub data.path=a/b", *(f"{key}={letter * 60}" for key in keys)]) for letter in "xy"]
    assert [len(label) for label in labels(*asked)] == [125, 125]
