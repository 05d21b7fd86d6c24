"""shipped.py and steered.py: what is compared with what, from points by hand, and what is run again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.config.files import config_of
from scripts.bench import shipped as script
from scripts.bench import steered
from scripts.bench.common_ground import CommonGround
from scripts.bench.peers.client import Unavailable
from scripts.bench.shipped_tables import print_differences, print_missed, read_off, with_error
from scripts.bench.sides import Run
from scripts.bench.sweeps import OURS

Point = dict[str, Any]


def point(member: str, l0: float, ce: float, **own: Any) -> Point:
    return {"member": member, "l0": l0, "ce_recovered": ce, **own}


def ours(*values: float) -> dict[str, list[Point]]:
    return {
        str(seed): [
            point("gated-l0_8-w64", 8.0, ce, l0_untrimmed=8.8 - seed),
            point("gated-l0_32-w64", 32.0, 0.99, l0_untrimmed=None),
        ]
        for seed, ce in enumerate(values)
    }


PEER = [point("a", 4.0, 0.9), point("b", 16.0, 0.96), point("dominated", 20.0, 0.5)]
FOUND: dict[str, dict[str, Any]] = {
    "ours/gated null": {"seeds": ours(0.95, 0.93)},
    "sae-lens/gated": {"seeds": {str(seed): PEER for seed in (0, 1, 2)}},
}
BESIDE = {"gated": ("ours/gated null", "sae-lens/gated")}


def test_what_is_not_recovered_is_interpolated_as_a_power_of_l0() -> None:
    assert read_off(PEER, 8.0) == pytest.approx(1 - (0.1 * 0.04) ** 0.5)
    assert read_off(PEER, 16.0) == pytest.approx(0.96)
    slope = 0.4**0.5  # each doubling of L0
    assert read_off(PEER, 17.0) == pytest.approx(1 - 0.04 * slope ** (0.0874628 / 1)), "17 = 16 * 2^0.0875"
    assert read_off(PEER, 3.7) is not None, "a little below what it reaches"
    assert [read_off(PEER, 18.0), read_off(PEER, 3.5), read_off(PEER[:1], 4.0)] == [None, None, None]


def test_the_table_has_means_the_difference_and_its_standard_error_over_seeds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_differences("title", FOUND, BESIDE, [8.0, 32.0])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "sae-lens/gated" in line]
    # 1 - 0.063246 is theirs; +0.013246 and -0.006754 are mean 0.003246, standard deviation 0.02 / sqrt 2.
    assert lines[0][1:] == ["sae-lens/gated", "8", "0.9400", "0.9368", "+0.0032", "±0.0100", "2"]
    assert lines[1][2:] == ["32", "-", "-", "-", "0"], "beyond what the peer reaches"
    assert (with_error([0.01]), with_error([])) == ("+0.0100", "-")


def test_what_steering_missed_by_is_told_of_each_l0_and_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    print_missed(FOUND, {"gated": "ours/gated null", "topk": "ours/topk null"}, [8.0, 32.0])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gated", "+0.038", "-", "0.100"] in lines, "8.8 and 7.8 of 8"
    assert ["topk", "-", "-", "-"] in lines


def test_every_pair_has_coefficients() -> None:
    assert set(script.PAIRS.values()) == set(script.COEFFICIENTS)
    own = ["ours/gated", "ours/gated_decoder_norm", "ours/jumprelu_anthropic"]
    assert script.part_names(["gated", "gated_decoder_norm", "jumprelu_anthropic"]) == [*own, "sae-lens/gated"]


class Trained:
    """In place of our command and the peers: what they would have been asked to train."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[tuple[str, str, int, tuple[float, ...]]] = []
        self.failing = False
        self.last: tuple[script.Shipped, str] | None = None
        for module in (script, steered):
            monkeypatch.setattr(module, "run_ours", lambda sweep, work, name: self.run(OURS, sweep, work))
            monkeypatch.setattr(module, "own_points", lambda folder: self.points())
        monkeypatch.setattr(script, "run_side", lambda side, sweep, work, *rest: self.run(side, sweep, work))
        monkeypatch.setattr(CommonGround, "of", lambda sweep: self)
        self.config = self
        self.data = None

    def save_rows(self, sweep: script.Shipped, file: Path) -> None:
        assert file.parent.is_dir()

    def run(self, side: str, sweep: script.Shipped, work: Path) -> Run:
        if self.failing:
            raise Unavailable("it fails")
        what = sweep.recipe if side == OURS else f"{side}/{sweep.architecture}"
        self.runs.append((what, sweep.own_lr, sweep.seed, sweep.members[side].values))
        self.last = sweep, side
        return Run(1.0, {"version": "6.0"}, work)

    def points(self, *_: Any) -> list[Point]:
        assert self.last is not None
        sweep, side = self.last
        names: Sequence[str] = list(sweep.members[side].named())
        if side == OURS:
            names = [f"{recipe}-{name}-w64" for recipe in sweep.recipe.split(",") for name in names]
        return [point(name, 4.0 * 2**i, 0.9, coefficient_final=2.0**i) for i, name in enumerate(names)]

    def asked(self) -> list[tuple[str, str, int, tuple[float, ...]]]:
        """Since this was asked last."""
        done, self.runs = self.runs, []
        return done


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    return Trained(monkeypatch)


def command(out: Path, *more: str) -> list[str]:
    return [*("--model", "demo", "--tokens", "t.npz", "--heldout", "h.npz", "--out", str(out)), *more]


def test_what_is_there_is_not_run_again(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    out, l0s = tmp_path / "shipped.json", (4.0, 8.0, 16.0, 32.0)
    gated = script.COEFFICIENTS["sae-lens", "gated"]
    assert script.main(command(out, "--only", "gated,topk", "--seeds", "0", "--parts", "ours,sae-lens/gated")) == 0
    assert trained.asked() == [("gated,topk", "1e-3", 0, l0s), ("sae-lens/gated", "1e-3", 0, gated)]
    assert script.main(command(out, "--only", "gated", "--seeds", "0,1")) == 0
    assert trained.asked() == [("gated", "1e-3", 1, l0s), ("sae-lens/gated", "1e-3", 1, gated)]
    assert script.main(command(out, "--only", "gated,topk", "--seeds", "0", "--lr", "null", "--parts", "ours")) == 0
    assert trained.asked() == [("gated,topk", "null", 0, l0s)]
    kept = json.loads(out.read_text(encoding="utf-8"))["architectures"]
    assert {key: list(entry["seeds"]) for key, entry in kept.items()} == {
        "ours/gated 1e-3": ["0", "1"],
        "ours/topk 1e-3": ["0"],
        "sae-lens/gated": ["0", "1"],
        "ours/gated null": ["0"],
        "ours/topk null": ["0"],
    }
    assert kept["sae-lens/gated"]["version"] == "6.0"
    assert [p["member"] for p in kept["ours/topk 1e-3"]["seeds"]["0"]] == [f"topk-l0_{l0:g}-w64" for l0 in l0s]
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    more = {**script.COEFFICIENTS, ("sae-lens", "gated"): (*gated, 30.0)}
    monkeypatch.setattr(script, "COEFFICIENTS", more)
    assert script.main(command(out, "--only", "gated", "--seeds", "1")) == 0
    assert trained.asked() == [("sae-lens/gated", "1e-3", 1, (30.0,))], "a coefficient more is one member more"
    assert script.main(command(out, "--only", "gated,topk", "--seeds", "1", "--l0", "4,6", "--parts", "ours")) == 0
    assert trained.asked() == [("gated", "1e-3", 1, (6.0,)), ("topk", "1e-3", 1, (4.0, 6.0))], "and so is an L0"
    assert script.main(command(out, "--only", "gated", "--seeds", "0", "--steps", "100", "--lr", "null")) == 0
    assert [run[0] for run in trained.asked()] == ["gated", "sae-lens/gated"], "other settings are measured anew"


def test_the_demo_brings_its_text_and_a_jumprelu_of_saelens_reads_inputs_as_they_are(
    tmp_path: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = ["--model", "demo", "--out", str(tmp_path / "demo.json"), "--only", "jumprelu,topk", "--seeds", "0"]
    assert script.main([*demo, "--parts", "sae-lens/topk,ours/topk"]) == 0
    assert trained.last is not None
    sweep, _ = trained.last
    assert "data=demo" in sweep.overrides("x", tmp_path)
    assert sweep.input_scale("sae-lens") == "sqrt_d"
    assert script.main([*demo, "--parts", "sae-lens/jumprelu"]) == 0
    sweep, _ = trained.last
    assert sweep.input_scale("sae-lens") == "none"
    kept = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))["architectures"]
    assert set(kept) == {"ours/topk 1e-3", "sae-lens/topk", "sae-lens/jumprelu none"}
    with pytest.raises(SystemExit):
        script.main([*demo, "--tokens", "t.npz"])
    assert "--tokens and --heldout go together" in capsys.readouterr().err


def test_what_fails_is_told_and_the_rest_goes_on(
    tmp_path: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.failing = True
    assert script.main(command(tmp_path / "out.json", "--only", "gated", "--seeds", "3")) == 0
    said = capsys.readouterr().err
    assert "ours, seed 3, was not measured: it fails" in said
    assert "sae-lens/gated, seed 3, was not measured: it fails" in said


def test_fixed_coefficients_lie_about_those_that_steering_ended_with(
    tmp_path: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shipped.json"
    assert steered.main(command(out, "--seeds", "0")) == 0
    assert capsys.readouterr().err.count("run shipped.py before") == len(steered.RECIPES)
    own = ["--only", "gated,jumprelu", "--l0", "4,8", "--seeds", "0"]
    assert script.main(command(out, *own, "--parts", "ours")) == 0
    trained.asked()
    assert steered.main(command(out, *own)) == steered.main(command(out, *own)) == 0
    # The first of each recipe's two members ended at 1 and 2 (gated), the second's are jumprelu's, which are not asked.
    assert trained.asked() == [
        ("gated", "1e-3", 0, (0.75, 1.33, 1.5, 2.67)),
        ("jumprelu", "1e-3", 0, steered.FAR_APART["jumprelu"].values),
    ]
    assert "fixed/gated 1e-3" in json.loads(out.read_text(encoding="utf-8"))["architectures"]


@pytest.mark.parametrize("recipe", [recipe for recipe in steered.RECIPES if recipe not in steered.FAR_APART])
def test_a_recipe_is_fixed_by_the_key_that_steering_stands_in_for(recipe: str) -> None:
    knob = steered.about([], recipe, (4,)).knob
    coefficient = config_of((f"sae={recipe}", f"sae.{knob}=7")).sae.coefficient()
    assert coefficient is not None
    assert coefficient.value == 7
