"""wandb's variables hold where neither the command line nor a config says otherwise."""

from pathlib import Path
from typing import Any

import pytest

from sae_sweep.config.files import config_of
from sae_sweep.config.schema import TrackingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.tracking.environment import resolved
from sae_sweep.tracking.tracker import Tracker
from sae_sweep.tracking.wandb_agent import asked_of, look_for_agent
from tests.tracking.offline import read_runs
from tests.tracking.test_tracking import MEMBERS, config

WANDB = {
    "WANDB_MODE": "online",
    "WANDB_PROJECT": "p",
    "WANDB_ENTITY": "us",
    "WANDB_RUN_GROUP": "g",
    "WANDB_TAGS": "a, b",
    "WANDB_NOTES": "n",
}


def found(*overrides: str, environment: dict[str, str]) -> tuple[Any, ...]:
    made: TrackingConfig = resolved(config_of([*overrides]).tracking, "sweep", environment)
    return made.mode, made.project, made.entity, made.group, made.tags, made.notes


def test_what_holds() -> None:
    assert found(environment={}) == ("offline", "sae-sweep", None, "sweep", None, None)
    assert found(environment=WANDB) == ("online", "p", "us", "g", ["a", "b"], "n")
    words = ("tracking=offline", "tracking.project=q", "tracking.entity=them", "tracking.group=h")
    stated = found(*words, "tracking.tags=[c]", "tracking.notes=m", environment=WANDB)
    assert stated == ("offline", "q", "them", "h", ["c"], "m")
    assert found("tracking=none", environment=WANDB)[0] == "none"
    assert found(environment={"WANDB_MODE": "disabled"})[0] == "none"
    assert found(environment={"WANDB_MODE": "dryrun"})[0] == "offline"


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (["tracking.mode=up"], {}, "tracking.mode=up is not one of online, offline, none, tensorboard"),
        ([], {"WANDB_MODE": "on"}, "WANDB_MODE=on is not one of online, offline, none, tensorboard"),
        (["tracking.mode=wandb"], {}, "tracking.mode=wandb is not one of online, offline, none, tensorboard"),
    ],
)
def test_a_mode_that_there_is_none_of(words: list[str], environment: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        found(*words, environment=environment)
    assert str(caught.value) == told


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_sweep.tracking.environment.find_spec", lambda name: None)
    for words, told in (
        ("tracking=tensorboard", "tracking.mode=tensorboard: tensorboard is not installed; pip install 'sae-sweep"),
        ("tracking.workspace=true", "tracking.workspace=true: wandb_workspaces is not installed; pip install 'sae-s"),
    ):
        with pytest.raises(ConfigError) as caught:
            found(words, environment={})
        assert str(caught.value).startswith(told)


@pytest.mark.usefixtures("wandb_at_home")
def test_a_trial_of_a_sweep_is_the_run_of_its_only_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the agent sets: its run, its sweep, and no other run gets either. Files go where WANDB_DIR says."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc123")
    monkeypatch.setenv("WANDB_RUN_ID", "trial7")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    tracker = Tracker(tmp_path / "sweep", "sweep", config("offline"), MEMBERS)
    for member in MEMBERS:
        tracker.log(member.label, 0, 100, {"loss": 1.0})
        tracker.finish(member.label, 1, {"l0": 3.0})
    tracker.close()
    runs = read_runs(tmp_path / "elsewhere")
    assert (runs["gated-a"]["id"], runs["gated-a"]["sweep_id"]) == ("trial7", "abc123")
    assert (runs["gated-b"]["id"] != "trial7", runs["gated-b"]["sweep_id"]) == (True, "")


def test_of_several_members_the_trial_is_the_run_of_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    several, single = (replace(MEMBERS[0], job="sweep", config={"members": count}) for count in (2, 1))
    for first, second in ((several, MEMBERS[0]), (single, MEMBERS[0])):
        monkeypatch.setenv("WANDB_SWEEP_ID", "abc123")
        look_for_agent()
        asked = [asked_of(run) for run in (first, second)]
        assert asked == ([{"sweep_id": "abc123"}, {}] if first is several else [{}, {"sweep_id": "abc123"}])
