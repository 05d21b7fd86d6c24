"""What tables show of what varies in a sweep."""

from sae_sweep.config.files import config_of
from sae_sweep.plan.axes import axes
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.members import identity_entries


def columns(*asked: str) -> dict[str, list[str]]:
    """The columns of members, each given as `key=value key=value`: values by title, in that order."""
    members = [plan_sweep([config_of(words.split())]).members[0] for words in asked]
    found = axes({str(number): identity_entries(member.config) for number, member in enumerate(members)})
    return {axis.title: [axis.values[str(number)] for number in range(len(asked))] for axis in found}


def test_one_member_varies_in_nothing() -> None:
    assert columns("sae=topk") == {}


def test_every_axis_has_a_column() -> None:
    grid = [f"sae=topk sae.k={k} site.layer={layer} seed={s}" for k in (8, 16) for layer in (1, 2) for s in (0, 1)]
    assert columns(*grid) == {
        "sparsity": ["k 8"] * 4 + ["k 16"] * 4,
        "layer": ["1", "1", "2", "2"] * 2,
        "seed": ["0", "1"] * 4,
    }


def test_kinds_sparsities_and_sizes() -> None:
    """A recipe's own keys are no axis; a key that only one kind varies has a value in the other too."""
    found = columns(
        *("sae=gated sae.l1=1e-3", "sae=topk sae.width=64 training.lr=1e-3", "sae=topk sae.l0=8 sae.expansion=2.5"),
        "site=mlp sae=topk sae.k=4",
    )
    assert found == {
        "sae": ["gated", "topk", "topk", "topk transcoder"],
        "sparsity": ["l1 0.001", "l0 32", "l0 8", "k 4"],
        "width": ["x16", "64", "x2.5", "x16"],
        "lr": ["-", "0.001", "-", "-"],
    }


def test_what_a_bare_name_does_not_say_has_its_whole_key() -> None:
    assert columns("seed=1", "data.seed=1") == {"data.seed": ["0", "1"], "seed": ["1", "0"]}


def test_an_entry_of_another_version() -> None:
    entries = identity_entries(config_of(["sae=topk"]))
    old = {**entries, "sae": {"architecture": "of_old", "l1": 3.0, "width": 8}}
    found = {axis.title: dict(axis.values) for axis in axes({"a": entries, "b": old})}
    assert found == {
        "sae": {"a": "topk", "b": "of_old"},
        "sparsity": {"a": "l0 32", "b": "l1 3"},
        "width": {"a": "x16", "b": "8"},
    }


def test_keys_of_synthetic_data_that_came_later_are_no_part_of_a_member_that_leaves_them() -> None:
    toy = identity_entries(config_of(["data=toy"]))["data"]["toy"]
    assert set(toy) == {"dimensions", "latents", "active", "decay", "correlated", "noise"}
    toy = identity_entries(config_of(["data=toy", "data.toy.zipf=1", "data.toy.roots=8"]))["data"]["toy"]
    assert {key: toy[key] for key in ("zipf", "roots")} == {"zipf": 1.0, "roots": 8}
    assert "children" not in toy
