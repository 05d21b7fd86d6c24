"""The rate of this machine, which a dry run gives minutes by."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.config.files import config_of
from sae_sweep.launch import speed
from sae_sweep.launch.dry_run import time_here
from sae_sweep.plan.groups import plan_sweep

MODEL = config_of(["model.device=cpu"]).model


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(speed, "MEASURE_SECONDS", 0.05)
    return tmp_path / "sae-sweep" / "flops.json"


def test_it_is_measured_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = speed.measured_flops(MODEL)
    assert found is not None
    assert 1e8 < found < 1e14
    monkeypatch.setattr(speed, "measured", None)
    assert speed.measured_flops(MODEL) == found


@pytest.mark.parametrize("kept", ["", "[]", '{"other": 1.0}'])
def test_what_cannot_be_measured_is_not_said(kept: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any) -> float:
        raise subprocess.CalledProcessError(1, "python")

    home.parent.mkdir()
    home.write_text(kept)
    monkeypatch.setattr(speed, "measured", fails)
    assert speed.measured_flops(MODEL) is None
    assert home.read_text() == kept


def test_minutes_follow_from_it() -> None:
    """Synthetic activations of 256 dimensions, 2e6 tokens, 512 latents: encoders are 2 x 256 x 512 operations each."""
    plan = plan_sweep([config_of(["data=toy", "sae=topk", "sae.k=8", "sae.width=512", "training.tokens=2e6"])])
    encoders = 2e6 * 2 * 256 * 512
    assert time_here(plan, encoders / 90).startswith("time here: 1m30s with sparse steps, 9m00s if all were dense")


def test_a_plan_says_them_unless_a_rate_is_given(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_sweep.launch.sweep.measured_flops", lambda model: 1e9)
    asked = ("data=toy", "sae=topk", "sae.k=8", "dry_run=true")
    assert program(*asked) == 0
    assert program.out.splitlines()[-1].startswith("time here: ")
    assert program(*asked, "launcher.device_flops=1e9") == 0
    assert "time here" not in program.out
