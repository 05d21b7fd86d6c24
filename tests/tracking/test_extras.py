"""Trackers that need packages of their own, with the real ones: `make evidence` has them installed."""

import json
from pathlib import Path

import pytest

from sae_sweep.tracking.dashboard import make_dashboard
from sae_sweep.tracking.tracker import Tracker
from tests.tracking.test_tracking import MEMBERS, config

pytestmark = [pytest.mark.evidence, pytest.mark.usefixtures("wandb_at_home")]


def test_the_spec_of_a_workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The installed wandb-workspaces made it, so it is valid for that; read back it is of this sweep."""
    make_dashboard(tmp_path, config("offline"), "ce_recovered")
    assert f"the workspace is in {tmp_path / 'dashboard.json'}" in capsys.readouterr().err
    spec = json.loads((tmp_path / "dashboard.json").read_text())
    assert (spec["project"], spec["display_name"]) == ("frontiers", "sweep: frontier")
    section = spec["spec"]["section"]
    chosen = section["run_sets"][0]["filters"]["filters"]
    assert [(one["key"]["name"], one["value"]) for one in chosen] == [("group", "sweep")]
    sections = {one["name"]: one["panels"] for one in section["panel_bank_config"]["sections"]}
    assert list(sections) == ["Frontier", "Curves", "Sweep"]
    scatter, coordinates = sections["Frontier"]
    axes = [scatter["config"][f"{axis}_axis"] for axis in "xyz"]
    assert axes == ["summary:eval/l0", "summary:eval/ce_recovered", "config:architecture.value"]
    assert scatter["config"]["x_axis_log_scale"]
    assert coordinates["view_type"] == "Parallel Coordinates Plot"
    assert all(panel["config"]["x_axis"] == "tokens" for panel in sections["Curves"])


def test_event_files_of_tensorboard(tmp_path: Path) -> None:
    """Steps are tokens, times are those of the steps, and what a kill left is superseded."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Tracker(tmp_path, "sweep", config("tensorboard"), MEMBERS[:1])
    for step in (0, 10, 20):
        first.log("gated-a", step, 100 * step, {"loss": 1.0 + step}, 1e9 + step)
    first.close()
    (tmp_path / "gated-a" / "metrics.jsonl").write_text('{"step": 0, "tokens": 0, "loss": 1.0}\n')
    second = Tracker(tmp_path, "sweep", config("tensorboard"), MEMBERS[:1], {"gated-a": 10})
    for step in (10, 20, 30):
        second.log("gated-a", step, 100 * step, {"loss": 1.0 + step}, 2e9 + step)
    second.finish("gated-a", 31, {"l0": 3.0, "tokens_trained": 3100})
    second.close()
    read = EventAccumulator(str(tmp_path / "tensorboard" / "gated-a"))
    read.Reload()
    found = [(event.step, event.value, event.wall_time) for event in read.Scalars("train/loss")]
    assert [(step, value) for step, value, _ in found] == [(0, 1.0), (1000, 11.0), (2000, 21.0), (3000, 31.0)]
    assert [moment for *_, moment in found][1:] == [2e9 + step for step in (10, 20, 30)]
    assert [(event.step, event.value) for event in read.Scalars("eval/l0")] == [(3100, 3.0)]
