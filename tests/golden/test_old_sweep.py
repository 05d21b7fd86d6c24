"""A sweep folder that an earlier version left is read, resumed and reported, and its members end as they did there.

`old_sweep/stopped` is what a kill left: one finished member, and two of another architecture each in the middle of a
block. `old_sweep/finished` is what the same version made of the same command without the kill. Sums of float32 depend
on the processor: on one of another kind than the folder was made on, numbers are near instead of equal.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sae_sweep.cli import main
from sae_sweep.config.files import config_of, saved_config
from sae_sweep.config.schema import MemberConfig
from sae_sweep.launch.local import run_sweep

OLD = Path(__file__).parent / "old_sweep"
SHARED = (
    *("name=old", "data=toy", "data.toy.dimensions=12", "data.toy.latents=16", "data.toy.active=3", "data.context=16"),
    *("data.block_rows=32", "sae.width=20", "training.batch_size=48", "training.tokens=4e3", "training.lr=1e-2"),
    *("evaluation.tokens=320", "evaluation.every=1000", "tracking=none", "tracking.log_every=4", "model.device=cpu"),
)
MEMBERS = (
    ("sae=standard_paper", "sae.l1=0.1", "training.tokens=1500"),
    ("sae=gated_paper", "sae.l0=3"),
    ("sae=topk_paper", "sae.k=3", "training.tokens=3e3"),
)
SMALL = (
    *("name=old", "model=demo", "model.device=cpu", "data=demo", "data.context=16", "data.block_rows=8"),
    *("site.layer=0", "sae=topk", "sae.k=3", "sae.width=16", "training.tokens=512", "training.batch_size=64"),
    *("evaluation.tokens=64", "tracking=none"),
)
"""A sweep on a language model."""


def processor() -> list[str]:
    """What sums of float32 depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return [model, torch.backends.cpu.get_cpu_capability(), torch.__version__]


SAME = processor() == json.loads((OLD / "processor.json").read_text())


def config(root: Path, *overrides: str) -> MemberConfig:
    return config_of([*SHARED, f"output_dir={root}", *overrides])


def assert_as_before(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Every key that there was; a later version may have more."""
    for key, value in expected.items():
        near = isinstance(value, float) and not SAME
        assert found[key] == (pytest.approx(value, rel=1e-2) if near else value), key


def test_it_is_resumed_and_ends_as_it_did_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(OLD / "stopped", tmp_path / "old")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        outcomes = run_sweep([config(tmp_path, *member) for member in MEMBERS])
    finally:
        torch.set_num_threads(threads)
    assert "resuming at step 28 of 83" in capsys.readouterr().err
    assert [outcome.state for outcome in outcomes] == ["finished"] * 3
    for outcome in outcomes:
        before = OLD / "finished" / outcome.label
        assert_as_before(json.loads((outcome.folder / "metrics.json").read_text()), metrics(before))
        lines = [file.read_text().splitlines() for file in (outcome.folder / "metrics.jsonl", before / "metrics.jsonl")]
        for found, expected in zip(*lines, strict=True):
            assert_as_before(json.loads(found), json.loads(expected))
        for name in ("sae_weights.safetensors", "sparsity.safetensors"):
            weights, expected_weights = load_file(outcome.folder / name), load_file(before / name)
            assert weights.keys() == expected_weights.keys()
            for key, tensor in expected_weights.items():
                torch.testing.assert_close(weights[key], tensor, rtol=0 if SAME else 1e-2, atol=0 if SAME else 1e-2)
    assert main(["report", str(tmp_path / "old")]) == 0
    points = json.loads((tmp_path / "old" / "pareto.json").read_text())
    assert all(outcome.label in json.dumps(points) for outcome in outcomes)


def test_the_same_command_keeps_its_values_and_says_which_defaults_are_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`standard` was the paper's then, and inputs were not scaled. Where a key is stated, it is another member."""
    shutil.copytree(OLD / "stopped", tmp_path / "old")
    command = [*SHARED, f"output_dir={tmp_path}", "dry_run=members", "sae=gated", "sae.l0=3"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "gated-l0_3-w20" in printed.out
    said = "old was begun with other defaults, which its members keep: sae.recipe paper (now balanced), sae.input_scale"
    assert f"{said} none (now sqrt_d)" in printed.err
    assert main([*command, "sae.input_scale=sqrt_d"]) == 2
    assert "holds a member of another config" in capsys.readouterr().err
    assert main([*command, "name=new"]) == 0
    assert "other defaults" not in capsys.readouterr().err


def test_a_sweep_begun_when_biases_had_the_lr_of_weights_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*SHARED, f"output_dir={tmp_path}", "sae.k=3"]
    assert main([*command, "sae=topk", "sae.recipe=tuned"]) == 0
    capsys.readouterr()
    assert main([*command, "sae=topk", "dry_run=members"]) == 0
    assert "which its members keep: sae.recipe tuned (now balanced); another" in capsys.readouterr().err
    assert main([*command, "sae=topk_paper", "name=paper", "dry_run=true"]) == 0
    assert main([*command, "sae=topk_paper", "dry_run=true"]) == 2  # another member under that name
    assert "sae.recipe: tuned -> paper" in capsys.readouterr().err


def test_a_sweep_begun_when_dead_latents_were_resampled_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*SHARED, f"output_dir={tmp_path}", "sae=gated", "sae.l1=1"]
    assert main([*command, "sae.recipe=tuned", "sae.resample=true"]) == 0
    capsys.readouterr()
    for stated in ([], ["sae.recipe=tuned"], ["sae.resample=true"]):
        assert main([*command, *stated, "dry_run=members"]) == 0
        printed = capsys.readouterr()
        assert "sae.recipe tuned (now balanced)" in printed.err or "sae.recipe=tuned" in stated
        assert "sae.resample true (now false)" in printed.err or "sae.resample=true" in stated
        assert "finished" in printed.out


@pytest.mark.parametrize("recipe", [(), ("sae.recipe=tuned",)])
def test_a_sweep_begun_when_ten_times_the_median_was_too_long_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: tuple[str, ...]
) -> None:
    """Whichever recipe was the default then."""
    command = [*SMALL, f"output_dir={tmp_path}"]
    assert main([*command, "data.max_norm_ratio=10", *recipe]) == 0
    capsys.readouterr()
    assert main([*command, "dry_run=members"]) == 0
    printed = capsys.readouterr()
    assert "data.max_norm_ratio 10 (now auto)" in printed.err
    assert ("sae.recipe tuned (now balanced)" in printed.err) == bool(recipe)
    assert "finished" in printed.out
    assert main([*command, *recipe, "data.max_norm_ratio=auto", "dry_run=members"]) == 2
    assert "holds a member of another config (data.max_norm_ratio: 10 -> auto)" in capsys.readouterr().err


def metrics(folder: Path) -> dict[str, Any]:
    """What metrics.json says."""
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def test_the_config_of_a_member_is_read_though_keys_have_come_since() -> None:
    """Those of tracking, which change no result; the version that saved it had no `tracking.group`."""
    file = OLD / "stopped" / "standard-l1_0.1-w20" / "config.yaml"
    assert "group:" not in file.read_text()
    config = saved_config(file)
    assert (config.training.tokens, config.tracking.mode, config.tracking.group) == (1500, "none", None)
