"""What a JumpReLU leaves to its inputs, the kernel's width and the first threshold, is where users look."""

import json
from math import sqrt
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sae_sweep.launch.local import run_sweep
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.tracking.described import member_run
from sae_sweep.training.run.opening import open_group
from tests.training.run.toy_sweeps import config


def trained(outputs: Path, *own: str) -> Path:
    """The folder of its one member."""
    made = config(f"output_dir={outputs}", "sae=jumprelu", "sae.l0=3", "training.tokens=1000", *own)
    (outcome,) = run_sweep([made])
    assert outcome.state == "finished"
    (file,) = (outputs / "sweep").glob("*/metrics.json")
    return file.parent


@pytest.mark.parametrize("scale", ["unit", "none"])
def test_config_says_what_was_used(scale: str, tmp_path: Path) -> None:
    """The width is that of 3 equal activations, halved; who asks for these numbers gets the same SAE, bit for bit."""
    first = trained(tmp_path / "first", f"sae.input_scale={scale}")
    said = OmegaConf.load(first / "config.yaml").sae
    (group,) = plan_sweep([config("sae=jumprelu", "sae.l0=3", f"sae.input_scale={scale}")]).groups
    opened = open_group(group)
    (x_BD,) = opened.source.block(0).activations.values()
    x_BD = x_BD.double() / (x_BD.double().square().sum(1).mean().sqrt() if scale == "unit" else 1)
    assert said.bandwidth == pytest.approx(0.5 * sqrt((x_BD - x_BD.mean(0)).square().sum(1).mean() / 3), rel=1e-6)
    (member,) = opened._waves.members
    begun = member.inference().tensors["threshold"] * member.input_scales[0]
    assert said.threshold_init == pytest.approx(begun.mean().item(), rel=1e-5)
    provenance = json.loads((first / "provenance.json").read_text())["config"]
    assert [provenance["sae"][key] for key in ("bandwidth", "threshold_init")] == [said.bandwidth, said.threshold_init]
    run = member_run(member.plan, member.plan.config.tracking)  # as wandb is told
    assert (run.config["sae"]["bandwidth"], run.config["sae"]["threshold_init"]) == (
        said.bandwidth,
        said.threshold_init,
    )
    given = (f"sae.bandwidth={said.bandwidth!r}", f"sae.threshold_init={said.threshold_init!r}")
    second = trained(tmp_path / "second", f"sae.input_scale={scale}", *given)
    for name in ("sae_weights.safetensors", "metrics.json", "metrics.jsonl"):
        assert (second / name).read_bytes() == (first / name).read_bytes()
