import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sae_sweep.cli import main
from sae_sweep.config.files import config_of
from sae_sweep.config.reading import config_entries
from sae_sweep.config.saved import architecture_label
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.reporting.pareto import BASELINES, cells, disagreements, frontier, interpolate, pareto_json
from sae_sweep.reporting.points import read_sweep
from sae_sweep.reporting.report import write_report
from sae_sweep.reporting.table import frontier_marks


def point(member: str, l0: float | None, ce: float | None) -> dict[str, Any]:
    return {"member": member, "l0": l0, "ce_recovered": ce}


def test_frontier_leaves_out_what_another_beats() -> None:
    points = [point("c", 30, 0.95), point("a", 10, 0.8), point("worse", 20, 0.79), point("b", 20, 0.9)]
    assert frontier(points) == ["a", "b", "c"]


def test_same_l0_keeps_the_higher_only() -> None:
    assert frontier([point("low", 10, 0.8), point("high", 10, 0.9)]) == ["high"]


def test_same_fidelity_keeps_the_sparser_only() -> None:
    assert frontier([point("dense", 20, 0.9), point("sparse", 10, 0.9)]) == ["sparse"]


def test_equal_members_stand_together() -> None:
    points = [point("b", 10, 0.9), point("a", 10, 0.9), point("c", 10, 0.85), point("d", 12, 0.9)]
    assert frontier(points) == ["b", "a"]


def test_undefined_members_take_no_part() -> None:
    points = [point("a", 10, 0.8), point("b", 5, math.nan), point("c", None, 0.99), point("d", 3, None)]
    assert frontier([*points, point("e", math.inf, 1.0)]) == ["a"]
    assert frontier([]) == []


def test_frontier_of_negative_fidelity() -> None:
    assert frontier([point("a", 1, -2.0), point("b", 2, -1.0), point("c", 3, -1.5)]) == ["a", "b"]


def test_interpolation_is_linear_in_log_l0() -> None:
    points = [point("b", 100, 0.9), point("a", 10, 0.8)]
    assert interpolate(points, 10 * math.sqrt(10)) == pytest.approx(0.85)
    assert interpolate(points, 20) == pytest.approx(0.8 + 0.1 * math.log10(2))


def test_interpolation_at_and_beyond_the_ends() -> None:
    points = [point("a", 10, 0.8), point("b", 100, 0.9)]
    assert interpolate(points, 10) == pytest.approx(0.8)
    assert interpolate(points, 100) == pytest.approx(0.9)
    assert interpolate(points, 9.99) is None
    assert interpolate(points, 100.01) is None
    assert interpolate([point("a", 10, 0.8)], 10) == 0.8
    assert interpolate([], 10) is None


def test_interpolation_follows_the_frontier() -> None:
    points = [point("a", 10, 0.8), point("worse", 30, 0.5), point("b", 100, 0.9), point("twin", 100, 0.9)]
    assert interpolate(points, 10 * math.sqrt(10)) == pytest.approx(0.85)


def test_cells_as_pareto_json_holds_them(sweep: Path) -> None:
    found = cells(read_sweep(sweep).points)
    written = json.loads(json.dumps(pareto_json(found), allow_nan=False))
    assert written["version"] == 1
    [cell] = written["cells"]
    assert set(cell) == {"key", "fidelity", "baselines", "tokens", "points", "seeds", "frontiers", "with_trimmed"}
    assert cell["fidelity"] == "ce_recovered"
    assert cell["baselines"] == {"ce_clean": 3.412, "ce_zero": 11.237, "ce_mean": 8.954}
    assert cell["tokens"] == 1_003_520
    assert cell["key"]["model"] == "gpt2"
    assert cell["key"]["revision"] is None
    assert cell["key"]["site"] == {"in": "blocks.6.hook_resid_post", "out": "blocks.6.hook_resid_post"}
    assert cell["key"]["positions"] == "counted"
    assert cell["key"]["evaluation"]["tokens"] == 1e6
    assert set(cell["frontiers"]) == {"overall", "standard", "standard_april", "gated", "topk"}
    facts = {"trimmed", "member", "architecture", "variant", "width", "knob", "knob_value", "lr", "seed"}
    assert all(set(point) == facts | set(METRICS) for point in cell["points"])


def test_points_say_what_the_members_are(sweep: Path) -> None:
    points = {point["member"]: point for point in read_sweep(sweep).points}
    april, topk = points["standard_april-l1_20-x16"], points["topk-k_24-x16"]
    assert (april["architecture"], april["variant"]) == ("standard_april", "april")
    assert points["standard-l1_0.004-x16"]["architecture"] == "standard"
    assert (topk["knob"], topk["knob_value"], topk["width"], topk["lr"], topk["seed"]) == ("k", 24, 768 * 16, 3e-4, 0)


def test_an_architecture_is_named_as_its_config_names_it() -> None:
    for sae in ("gated", "gated_decoder_norm", "standard_april", "topk"):
        config = config_of([f"sae={sae}"])
        assert architecture_label(config_entries(config)) == config.sae.method() == sae
    assert architecture_label({"sae": {"architecture": "new", "l1": 3}}) == "new", "of another version"


def test_frontiers_are_ordered_by_l0(sweep: Path) -> None:
    [cell] = cells(read_sweep(sweep).points)
    l0 = {point["member"]: point["l0"] for point in cell["points"]}
    for labels in cell["frontiers"].values():
        assert labels == sorted(labels, key=l0.__getitem__)
    assert len(cell["frontiers"]["topk"]) == 4


def test_sites_are_cells_of_their_own(make_sweep: Callable[..., Path]) -> None:
    found = cells(read_sweep(make_sweep(layers=(3, 6), lines=2)).points)
    assert [cell["key"]["site"]["in"] for cell in found] == ["blocks.3.hook_resid_post", "blocks.6.hook_resid_post"]
    assert [len(cell["points"]) for cell in found] == [16, 16]


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    entries = json.loads(file.read_text())
    change(entries)
    file.write_text(json.dumps(entries))


def test_what_the_config_leaves_open_is_read_from_the_export(sweep: Path) -> None:
    label = "topk-k_24-x16"

    def leave_open(entries: dict[str, Any]) -> None:
        config = entries["members"][label]["config"]
        config["model"] |= {"path": None, "d_model": None}
        config["site"]["layer"] = None
        config["training"]["lr"] = None

    edit(sweep / "sweep.json", leave_open)
    (sweep / label / "cfg.json").write_text(json.dumps({"d_sae": 2048, "metadata": {"hook_name": "blocks.2.x"}}))
    found = next(point for point in read_sweep(sweep).points if point["member"] == label)
    assert found["width"] == 2048
    assert found["cell"]["model"] == "demo"
    assert found["cell"]["site"]["in"] == "blocks.2.x"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"l0": 3', "damaged (not valid JSON)"),
        ("[]", "damaged (not a JSON object)"),
        (None, "cannot be read"),
    ],
)
def test_metrics_that_cannot_be_used_leave_their_member_out(sweep: Path, content: str | None, said: str) -> None:
    file = sweep / "topk-k_24-x16" / "metrics.json"
    file.unlink() if content is None else file.write_text(content)
    record = read_sweep(sweep)
    assert len(record.points) == 15
    [note] = record.notes
    assert note.startswith("topk-k_24-x16: left out, ")
    assert said in note
    assert "\n" not in note


def test_a_missing_metric_is_undefined_and_an_unknown_one_is_kept(sweep: Path) -> None:
    file = sweep / "topk-k_24-x16" / "metrics.json"
    file.write_text('{"l0": 3.5, "of_another_program": "kept", "theirs": NaN}')
    record = read_sweep(sweep)
    found = next(point for point in record.points if point["member"] == "topk-k_24-x16")
    assert record.notes == []
    assert {key: found[key] for key in METRICS if found[key] is not None} == {"l0": 3.5}
    assert (found["of_another_program"], found["theirs"]) == ("kept", None)


def test_members_without_any_metric_are_reported(sweep: Path) -> None:
    """One of them was to have an L0 of 24."""
    for folder in sweep.glob("*-*"):
        (folder / "metrics.json").write_text("{}")
    edit(sweep / "sweep.json", lambda sweep: sweep["members"]["topk-k_24-x16"]["config"]["sae"].update(l0=24.0))
    console = Console(file=io.StringIO(), width=200)
    assert [len(cell["points"]) for cell in write_report(sweep, console)] == [16]
    assert "member" in console.file.getvalue()


def test_a_metric_that_is_no_number_is_damage(sweep: Path) -> None:
    edit(sweep / "topk-k_24-x16" / "metrics.json", lambda metrics: metrics.update(kl="high"))
    assert "kl is 'high'" in read_sweep(sweep).notes[0]


def test_nan_metrics_are_undefined(sweep: Path) -> None:
    edit(sweep / "topk-k_24-x16" / "metrics.json", lambda metrics: metrics.update(ce_recovered=math.nan, gamma=None))
    [cell] = cells(read_sweep(sweep).points)
    found = next(point for point in cell["points"] if point["member"] == "topk-k_24-x16")
    assert found["ce_recovered"] is None
    assert "topk-k_24-x16" not in cell["frontiers"]["topk"]
    json.dumps(pareto_json([cell]), allow_nan=False)


def test_a_missed_l0_and_a_worthless_site_are_told(sweep: Path) -> None:
    (cell,) = cells(read_sweep(sweep).points)
    assert disagreements(cell) == []
    cell["points"][0] |= {"member": "gated-l0_16-x8", "knob": "l0", "knob_value": 16.0, "l0": 16.7}
    assert disagreements(cell) == []
    cell["points"][0]["l0"] = 17.5
    assert disagreements(cell) == [
        "L0 missed: gated-l0_16-x8 has 17.5 on held-out text, not the 16 that it has on training text"
    ]
    cell["baselines"] |= {"ce_clean": 3.0, "ce_zero": 2.9}
    assert "CE recovered means nothing here" in disagreements(cell)[0]


def test_other_held_out_tokens_are_told(sweep: Path) -> None:
    [cell] = cells(read_sweep(sweep).points)
    assert disagreements(cell) == []
    cell["points"][3]["ce_clean"] = 3.5
    [line] = disagreements(cell)
    assert line.startswith("ce_clean runs from 3.412 to 3.5")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"version": 2, "members": {}}'])
def test_a_folder_without_a_readable_sweep_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ConfigError, match=r"sweep\.json"):
        read_sweep(tmp_path)


@pytest.mark.parametrize(
    ("untrimmed", "trimmed"), [(None, False), (17.5, False), (17.7, True), (14.5, False), (14.3, True)]
)
def test_a_member_that_missed_its_l0_by_more_than_a_tenth_is_on_no_frontier(
    sweep: Path, untrimmed: float | None, trimmed: bool
) -> None:
    """The best of gated, asked for at 16."""
    label = "gated-l1_0.00015-x16"
    entries = json.loads((sweep / "sweep.json").read_text())
    entries["members"][label]["config"]["sae"] |= {"l1": None, "l0": 16.0}
    (sweep / "sweep.json").write_text(json.dumps(entries))
    file = sweep / label / "metrics.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"l0_untrimmed": untrimmed, "l0": 16.0, "ce_recovered": 1.0})
    )
    points = read_sweep(sweep).points
    for with_trimmed in (False, True):
        (cell,) = cells(points, with_trimmed=with_trimmed)
        assert [point["member"] for point in cell["points"] if point["trimmed"]] == [label] * trimmed
        for name in ("overall", "gated"):
            assert (label in cell["frontiers"][name]) is (with_trimmed or not trimmed)
        assert (frontier_marks(cell)[label] == "trimmed") is (trimmed and not with_trimmed)
        told = [line for line in disagreements(cell) if line.startswith("L0 trimmed: ")]
        assert len(told) == trimmed
        assert ["it is on no frontier" in line for line in told] == [not with_trimmed] * trimmed


def test_of_many_members_with_the_same_doubt_three_are_named() -> None:
    point = {"knob": "l0", "knob_value": 8.0, "l0": 20.0, "trimmed": False} | dict.fromkeys(BASELINES)
    cell = {"baselines": dict.fromkeys(BASELINES), "points": [{**point, "member": f"m{n}"} for n in range(5)]}
    told = disagreements(cell)
    assert [line.split()[2] for line in told] == ["m0", "m1", "m2", "and"]
    assert told[-1] == "L0 missed: and 2 more"


def test_the_report_takes_trimmed_members_where_asked(sweep: Path) -> None:
    assert main(["report", str(sweep), "--with-trimmed"]) == 0
    assert json.loads((sweep / "pareto.json").read_text())["cells"][0]["with_trimmed"] is True
    assert main(["report", str(sweep)]) == 0
    assert json.loads((sweep / "pareto.json").read_text())["cells"][0]["with_trimmed"] is False
    out = sweep / "x.html"
    assert main(["report", str(sweep), "--with-trimmed", "--out", str(out)]) == 0
    assert '"with_trimmed":true' in out.read_text(encoding="utf-8")
