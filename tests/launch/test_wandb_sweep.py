"""The example of `wandb sweep`: the command line that wandb's agent makes of it is one of ours."""

from pathlib import Path
from typing import Any

import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

EXAMPLE = Path(__file__).parents[2] / "docs" / "wandb_sweep.yaml"


def test_the_command_line_of_an_agent(program: Any) -> None:
    asked = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    chosen = {"training.lr": {"value": 0.0012}, "sae.expansion": {"value": 16}}
    assert chosen.keys() == asked["parameters"].keys()
    words = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
    line = create_sweep_command([chunk for chunk in asked["command"] if not chunk.startswith("${")])
    assert line[0] == "sae-sweep"
    assert asked["command"][-1] == "${args_no_hyphens}"
    assert program(*line[1:], *words, "tracking=none", "dry_run=members") == 0
    (member,) = [text for text in program.out.splitlines() if " topk-k_32-x16" in text]
    assert "2048" in member
    assert "0.0012" in member
    assert asked["metric"]["name"] == "eval/ce_recovered"
