"""sweep.py: one run of our side at tiny sizes, and what is made of the sides' results."""

import json
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.architectures.jumprelu.facts import JumpReluConfig
from scripts.bench import sweep as script
from scripts.bench.language_model import LanguageModel, named
from scripts.bench.matching import l0s_in_common, matched
from scripts.bench.measure import ROOT
from scripts.bench.own import configured
from scripts.bench.sides import Run
from scripts.bench.sweeps import DICTIONARY, OURS, SAELENS, Members, Sweep, members

Point = dict[str, Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a quick run; the text is a short one, since reading the demo's is most of the time."""
    folder = tmp_path_factory.mktemp("sweep")
    text = folder / "text.txt"
    files = sorted((ROOT / "sae_sweep" / "training").glob("*.py"))
    text.write_text("\n".join(file.read_text(encoding="utf-8") for file in files), encoding="utf-8")
    out = folder / "sweep.json"
    arguments = ["--quick", "--no-peers", "--only", "topk", "--model", "demo", "--text", str(text), "--out", str(out)]
    assert script.main(arguments) == 0
    return dict(json.loads(out.read_text(encoding="utf-8")))


@pytest.mark.evidence
def test_our_side_is_timed_and_judged(found: dict[str, Any]) -> None:
    entry = found["architectures"]["topk"]
    assert entry["sweep"]["members"]["ours"] == {"knob": "k", "values": [6, 16]}
    assert (entry["sweep"]["model"], entry["sweep"]["d"], entry["sweep"]["layer"]) == ("demo_lm", 128, 2)
    ours = entry["sides"]["ours"]
    assert 0 < ours["training_seconds"] < ours["whole_seconds"]
    assert 0 < ours["judging_seconds"] < ours["whole_seconds"] - ours["training_seconds"]
    tokens = int(entry["sweep"]["tokens"]) // 256 * 256
    assert ours["us_per_token_and_sae"] == pytest.approx(1e6 * ours["training_seconds"] / (2 * tokens))
    assert sorted(point["l0"] for point in entry["points"]["ours"]) == pytest.approx([6, 16])
    assert all(0 < point["ce_recovered"] < 1 for point in entry["points"]["ours"])
    assert entry["machine"]["commit"]
    assert (entry["matched"], entry["not_measured"]) == ([], {})


def a_sweep(architecture: str, model: LanguageModel) -> Sweep:
    return Sweep(
        architecture=architecture,
        recipe=architecture,
        members=members(architecture, (8.0, 16.0, 32.0), (0.1, 0.5, 1.0)),
        width=256,
        tokens=200_000,
        batch=1024,
        lr=3e-3,
        decay=0.25,
        model=model,
        text=None,
        evaluation_tokens=1e4,
        device="cpu",
        seed=3,
    )


@pytest.fixture
def model(tmp_path: Path) -> LanguageModel:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 48}))
    return named(str(tmp_path), None)


@pytest.mark.parametrize("side", [SAELENS, DICTIONARY])
@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
def test_peers_are_asked_for_what_our_command_is(architecture: str, side: str, model: LanguageModel) -> None:
    sweep = a_sweep(architecture, model)
    ours = configured(sweep.few(1).overrides("name", Path("out")))
    asked = sweep.few(1).request(side, ours.data)
    assert asked["width"] == ours.sae.width
    assert asked["batch"] == ours.training.batch_size
    steps = asked["tokens"] // asked["batch"]
    assert steps * asked["batch"] == ours.training.tokens
    assert (asked["lr"], asked["lr_warmup_steps"]) == (ours.training.lr, ours.training.lr_warmup_steps)
    assert ours.training.lr_decay_fraction is not None
    assert asked["lr_decay_steps"] == round(ours.training.lr_decay_fraction * steps)
    if architecture != "jumprelu":  # ours has a target, which falls for longer
        assert asked["sparsity_warmup_steps"] == ours.training.sparsity_warmup_steps
    assert (asked["context"], asked["seed"], asked["d"]) == (ours.data.context, 3, 48)
    assert asked["model"] == ours.model.path
    assert asked["module"] == "model.layers.0"
    assert ours.sae.input_scale == "sqrt_d"
    assert asked["input_scale"] == ("unit" if (side, architecture) == (DICTIONARY, "jumprelu") else "sqrt_d")
    if architecture == "topk":
        assert ours.sae.encoder_init == "transpose"
    if isinstance(ours.sae, JumpReluConfig):
        assert (ours.sae.bandwidth, ours.training.sparsity_warmup_steps) == (None, steps // 3)
        assert ours.sae.free_decoder
    knobs = {"standard": {"l1_16": 16}, "topk": {"k_16": 16}, "jumprelu": {"l0_16": 16}}
    takes_coefficient = (side, architecture) == (SAELENS, "jumprelu")
    assert asked["members"] == ({"l0_coefficient_0.5": 0.5} if takes_coefficient else knobs[architecture])


def test_few_are_the_middle_ones_and_whole_values_are_ints() -> None:
    own = Members("k", (6.0, 10.0, 16.0, 24.0))
    assert own.few(2).values == (10.0, 16.0)
    assert own.few(1).values == (10.0,)
    assert [type(value) for value in Members("l1", (2.0, 0.5)).named().values()] == [int, float]


def test_the_demo_model_is_the_one_that_ships() -> None:
    shipped = named("demo", None)
    assert (shipped.d, shipped.layer, shipped.overrides) == (128, 2, ["model=demo"])
    assert named("demo", 1).layer == 1


def curve(of: float, *l0s: float) -> list[Point]:
    return [{"member": str(l0), "l0": l0, "ce_recovered": l0 / of} for l0 in l0s]


def test_sides_are_compared_where_ours_and_a_peer_have_points() -> None:
    rows = matched({OURS: curve(100, 4.0, 16.0, 64.0), SAELENS: curve(200, 16.0, 64.0, 90.0)})
    assert [row["l0"] for row in rows] == pytest.approx([16, 22.627, 32, 45.255, 64], rel=1e-4)
    assert rows[0] == {"l0": 16, OURS: pytest.approx(0.16), SAELENS: pytest.approx(0.08)}
    for row in rows:
        assert row[OURS] is not None
        assert row[OURS] == pytest.approx(2 * (row[SAELENS] or 0))
    assert matched({OURS: curve(100, 4.0, 16.0)}) == []
    assert matched({OURS: curve(100, 4.0), SAELENS: curve(200, 16.0, 64.0)}) == []


def test_several_runs_are_compared_where_all_have_points() -> None:
    first = {OURS: curve(100, 4.0, 64.0), SAELENS: curve(200, 2.0, 32.0)}
    second = {OURS: curve(100, 3.0, 64.0), SAELENS: curve(200, 8.0, 40.0)}
    assert l0s_in_common([first, second]) == pytest.approx([8, 11.314, 16, 22.627, 32], rel=1e-4)
    assert l0s_in_common([first, {OURS: curve(100, 3.0, 64.0)}]) == []
    assert l0s_in_common([]) == []


def test_between_two_points_fidelity_is_linear_in_log_l0() -> None:
    """Half of the way from 4 to 64, by ratios, is 16."""
    ours = [{"member": "a", "l0": 4.0, "ce_recovered": 0.5}, {"member": "b", "l0": 64.0, "ce_recovered": 0.9}]
    rows = matched({OURS: ours, SAELENS: curve(100, 4.0, 64.0)})
    assert rows[2]["l0"] == pytest.approx(16)
    assert rows[2][OURS] == pytest.approx(0.7)


def test_a_peer_elsewhere_does_not_hide_the_other() -> None:
    """Nor does a diverged member, whose numbers are missing."""
    nothing: Point = {"member": "x", "l0": None, "ce_recovered": None}
    sides = {SAELENS: curve(200, 180.0, 190.0), DICTIONARY: [*curve(300, 4.0, 16.0), nothing]}
    rows = matched({OURS: curve(100, 8.0, 32.0), **sides})
    assert [row["l0"] for row in rows][:: len(rows) - 1] == pytest.approx([8, 32])
    assert [row[SAELENS] for row in rows] == [None] * 5
    assert rows[0][DICTIONARY] is not None
    assert rows[-1][DICTIONARY] is None


def test_quarters_of_a_run_are_between_its_marks() -> None:
    marks = {"begin": 10.0, "steps": [14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 19.5, 20.0], "end": 21.0}
    run = Run(30.0, marks, Path("unused"))
    assert run.training == 11
    assert run.quarter(last=False) == 5
    assert run.quarter(last=True) == 1
