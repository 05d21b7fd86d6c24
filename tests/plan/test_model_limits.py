"""Models that one device has no room for: what they do not go with, and what a plan counts of them."""

from pathlib import Path

import pytest

from sae_sweep.config.files import config_of
from sae_sweep.errors import ConfigError
from sae_sweep.launch.dry_run import print_plan
from sae_sweep.model import quantised
from sae_sweep.plan import devices
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.plan.limits import check_config, check_shared
from sae_sweep.plan.sizes import model_bytes

EMBEDDING, BLOCK, BLOCKS = 256000 * 3584, 4 * 3584 * 16 * 256 + 3 * 3584 * 14336, 42
"""Numbers of Gemma-2-9B, and how many blocks it has."""


def held(**of_model: object) -> float:
    """Bytes of Gemma-2-9B beside its embeddings, in blocks of a byte for each number."""
    asked = {f"model.{key}": value for key, value in of_model.items()}
    (group,) = plan_sweep([config_of({"model": "gemma-2-9b", "sae.width": 16384, **asked})]).groups
    return (model_bytes(group) - 2 * EMBEDDING) / BLOCK


def test_bits_that_a_plan_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Of 4 bits, a float32 for each 64 besides."""
    monkeypatch.setattr(quantised, "find_spec", lambda name: name)
    asked = [held(quantize=bits) for bits in (None, "8bit", "4bit")]
    assert asked == [2 * BLOCKS, BLOCKS, pytest.approx(BLOCKS * (0.5 + 1 / 16))]
    plan = plan_sweep([config_of(["model=gemma-2-9b", "model.quantize=4bit", "sae.width=16384", "model.device=cpu"])])
    print_plan(plan, tmp_path, [], here=False)
    assert "model gemma-2-9b (hf, bfloat16, 4bit, cpu)" in capsys.readouterr().out


def test_blocks_that_a_plan_counts_on_the_members_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a word, a share; of a mapping, those that are not elsewhere, and one more at a time of those on the disk."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,5")

    def blocks(device: str, device_map: dict[str, int | str] | str) -> float:
        return held(device=device, device_map=device_map) / 2

    assert [blocks("cuda", word) for word in ("auto", "balanced", "balanced_low_0")] == [14, 14, 0]
    away: dict[str, int | str] = {f"model.layers.{layer}": 1 for layer in range(10)}
    assert blocks("cuda", away) == BLOCKS - 10
    assert blocks("cuda", {**away, "model.layers.10": 0, "model.layers.11": "cuda:0"}) == BLOCKS - 10
    assert blocks("cuda", {**away, "model.layers.20": "disk"}) == BLOCKS - 11 + 1
    assert blocks("cuda:1", {**away, "model.layers.20": 0}) == BLOCKS - 1
    assert blocks("cpu", {"model.layers.0": "cpu", "model.layers.1": "disk"}) == BLOCKS
    assert blocks("cpu", "auto") == BLOCKS


def test_how_many_gpus_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "GPU", tmp_path / "nvidiactl")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.gpu_count() == 1
    for name in ("nvidiactl", "nvidia0", "nvidia1", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert devices.gpu_count() == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices.gpu_count() == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("model.device_map=evenly", "model.device_map=evenly is not one of auto, balanced, balanced_low_0"),
        ("model.device_map=auto model.backend=transformer_lens", "model.device_map is model.backend=hf's"),
        ("model.device_map=auto model.adapter=x", "is merged into a whole model on one device, and model.device_map"),
        ("model.device_map=auto launcher.devices=2", "lays one model over devices, and 2 .* would each have one"),
        ("model.quantize=3bit", "model.quantize=3bit is not one of 8bit, 4bit"),
        ("model.quantize=4bit model.backend=transformer_lens", "model.quantize is model.backend=hf's"),
        ("model.quantize=4bit model.adapter=x", "and model.quantize asks for another"),
        ("model.quantize=4bit model.dtype=float64", "model.dtype=float64: bitsandbytes computes"),
        ("model.quantize=8bit data.attention=document", "data.attention=document: with model.quantize=8bit"),
        ("data=toy model.quantize=8bit", "model.quantize=8bit is not read with data.kind=toy"),
        ("data=toy model.device_map=auto", "model.device_map=auto is not read with data.kind=toy"),
    ],
)
def test_what_it_does_not_go_with(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_config(config_of(given.split()))


@pytest.mark.parametrize("place", ["tpu", -1, "0", "cuda"])
def test_a_place_that_is_none(place: int | str) -> None:
    with pytest.raises(ConfigError, match=r"for model\.layers\.0, is not cpu, disk or the number of a GPU"):
        check_config(config_of({"model.device_map": {"model.layers.0": place}}))


@pytest.mark.parametrize("value", [{}, 3, {"model.layers.0": None}, {"model.layers.0": True}])
def test_a_map_that_is_none(value: object) -> None:
    with pytest.raises(ConfigError, match=r"model\.device_map=.* is not a word, or devices by the names of modules"):
        config_of({"model.device_map": value})


def test_ranks_that_something_else_started_are_told_too() -> None:
    made = config_of(["model.device_map=auto"])
    check_shared(made, 1)
    with pytest.raises(ConfigError, match=r"model\.device_map lays one model over devices, and 4 \(launcher\.devices"):
        check_shared(made, 4)
