"""Which jobs a list of grids and a command line ask for."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from sae_sweep.errors import ConfigError
from sae_sweep.launch.hydra.grids import sweep_jobs

DEMO = [
    {"sae": "gated", "sae.l1": [0.1, 0.2], "training.lr": 3e-4},
    {"sae": "standard", "sae.l1": "0.3,0.4"},
    {"sae": "topk", "sae.k": [8, 16]},
]


def jobs(*command_line: str, grids: Any = (), params: Any = None) -> list[str]:
    """Each job's overrides, joined."""
    parser = OverridesParser.create()
    made = sweep_jobs(grids, params or {}, command_line, parser, {"sae", "model", "site"})
    return [" ".join(job) for job in made]


def refusal(*command_line: str, grids: Any = (), params: Any = None) -> str:
    with pytest.raises(ConfigError) as caught:
        jobs(*command_line, grids=grids, params=params)
    return str(caught.value)


def test_without_grids_a_sweep_is_the_product_of_the_command_line() -> None:
    assert jobs() == [""]
    assert jobs("seed=3") == ["seed=3"]
    assert jobs("sae=gated,topk", "sae.l0=16,32") == [
        "sae=gated sae.l0=16",
        "sae=gated sae.l0=32",
        "sae=topk sae.l0=16",
        "sae=topk sae.l0=32",
    ]
    assert jobs("seed=range(0,3)") == ["seed=0", "seed=1", "seed=2"]
    assert jobs("seed=choice(4)") == ["seed=4"]
    assert jobs("seed=1", "seed=2") == ["seed=2"], "the last one has it"


def test_grids_are_joined() -> None:
    assert jobs("+experiment=demo", grids=DEMO) == [
        "sae=gated sae.l1=0.1 training.lr=0.0003 +experiment=demo",
        "sae=gated sae.l1=0.2 training.lr=0.0003 +experiment=demo",
        "sae=standard sae.l1=0.3 +experiment=demo",
        "sae=standard sae.l1=0.4 +experiment=demo",
        "sae=topk sae.k=8 +experiment=demo",
        "sae=topk sae.k=16 +experiment=demo",
    ]


def test_a_value_replaces_its_key_in_the_grids_that_list_it() -> None:
    assert jobs("sae.k=64", grids=DEMO)[-1] == "sae=topk sae.k=64"
    assert len(jobs("sae.k=64", grids=DEMO)) == 5
    assert jobs("training.lr=1", grids=DEMO)[:3] == [
        "sae=gated sae.l1=0.1 training.lr=1",
        "sae=gated sae.l1=0.2 training.lr=1",
        "sae=standard sae.l1=0.3",
    ]


def test_a_value_that_no_grid_lists_joins_all() -> None:
    made = jobs("seed=0,1", grids=DEMO)
    assert len(made) == 12
    assert all("seed=" in job for job in made)


def test_a_group_choice_keeps_the_grids_that_have_it() -> None:
    assert jobs("sae=topk", grids=DEMO) == ["sae=topk sae.k=8", "sae=topk sae.k=16"]
    assert len(jobs("sae=topk,gated", grids=DEMO)) == 4
    both = [{"sae": ["gated", "topk"], "seed": [0, 1]}]
    assert jobs("sae=topk", grids=both) == ["sae=topk seed=0", "sae=topk seed=1"]


def test_a_group_choice_joins_the_grids_that_make_none() -> None:
    assert len(jobs("model=gpt2", grids=DEMO)) == 6
    assert jobs("sae=topk", grids=[{"sae": "gated"}, {"seed": 1}]) == ["seed=1 sae=topk"]


def test_a_group_choice_that_no_grid_has_is_refused() -> None:
    assert refusal("sae=jumprelu", grids=DEMO) == (
        "sae=jumprelu: no grid of this experiment has it; they have gated, standard, topk"
    )


def test_l0_replaces_every_grids_own_knob() -> None:
    assert jobs("sae.l0=16,32", grids=DEMO) == [
        "sae=gated training.lr=0.0003 sae.l0=16",
        "sae=gated training.lr=0.0003 sae.l0=32",
        "sae=standard sae.l0=16",
        "sae=standard sae.l0=32",
        "sae=topk sae.l0=16",
        "sae=topk sae.l0=32",
    ]
    mixed = [{"sae": "gated", "sae.l0": [1, 2]}, {"sae": "topk", "sae.k": 8}]
    assert jobs("sae.l0=3", grids=mixed) == ["sae=gated sae.l0=3", "sae=topk sae.l0=3"]


def test_a_knob_replaces_l0_where_it_lands() -> None:
    by_l0 = [{"sae": "gated", "sae.l0": [1, 2]}, {"sae": "standard", "sae.l0": 3}]
    assert jobs("sae.l1=0.5", grids=by_l0) == ["sae=gated sae.l1=0.5", "sae=standard sae.l1=0.5"]
    mixed = [{"sae": "gated", "sae.l0": [1, 2]}, {"sae": "topk", "sae.k": 8}]
    assert jobs("sae.k=9", grids=mixed) == ["sae=gated sae.l0=1", "sae=gated sae.l0=2", "sae=topk sae.k=9"]


def test_l0_and_a_knob_both_asked_for_stay_both() -> None:
    assert jobs("sae.l0=3", "sae.k=9", grids=DEMO)[-1] == "sae=topk sae.l0=3 sae.k=9"


def test_params_are_axes_of_every_grid_that_does_not_list_their_key() -> None:
    params = {"seed": "0,1", "training.lr": 1}
    assert jobs(params=params) == ["seed=0 training.lr=1", "seed=1 training.lr=1"]
    assert jobs("seed=7", params=params) == ["training.lr=1 seed=7"]
    made = jobs(grids=DEMO, params=params)
    assert len(made) == 12
    assert [job for job in made if "sae=gated" in job and "training.lr=1" in job] == []
    assert jobs(grids=[{"sae.l1": 2}], params={"sae.l0": 5}) == ["sae.l1=2"]


def test_the_same_job_is_asked_for_once() -> None:
    grids = [{"sae": "gated", "seed": [0, 1]}, {"sae": "gated", "seed": [1, 2]}]
    assert jobs(grids=grids) == ["sae=gated seed=0", "sae=gated seed=1", "sae=gated seed=2"]


def test_values_of_every_type_survive() -> None:
    grid = {"training.lr": [1e-5, None], "dry_run": True, "data.path": "[a,b]"}
    assert jobs(grids=[grid]) == [
        "training.lr=1e-05 dry_run=true data.path=[a,b]",
        "training.lr=null dry_run=true data.path=[a,b]",
    ]


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        (["sae"], "hydra.sweeper.grids[0]=sae is not a mapping of keys to values"),
        ([{"sae.l1": []}], "hydra.sweeper.grids[0]: sae.l1=[] has no values; give at least one"),
        ([{"hydra/launcher": "local"}], "hydra.sweeper.grids[0]: hydra/launcher cannot be swept"),
        ([{"sae.l1": "interval(0,1)"}], "sae.l1=interval(0,1): an interval has no values to train"),
    ],
)
def test_a_grid_that_cannot_be_read_is_refused(grids: Any, message: str) -> None:
    assert message in refusal(grids=grids)
