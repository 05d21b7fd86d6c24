"""Models in 8 or 4 bits. A quantiser of the tests stands for bitsandbytes, but in evidence."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sae_sweep.activations.cache_folder import cache_entries
from sae_sweep.config.files import config_of
from sae_sweep.config.reading import config_entries
from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.launch.local import run_sweep
from sae_sweep.model import quantised
from sae_sweep.model.load import load_model
from sae_sweep.model.sites import HOOK_OF_KIND
from sae_sweep.model.suffix import Suffix
from sae_sweep.plan.groups import plan_sweep, stream_key
from sae_sweep.plan.members import member_identity
from sae_sweep.reporting.cell import cell_key, cell_title
from tests.model.conftest import Case
from tests.model.quantising import RoundingConfig, stand_in

Config = Callable[..., ModelConfig]


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)


@pytest.mark.usefixtures("rounding")
def test_matrices_of_blocks_are_rounded_and_no_others(llama_folder: Path, model_config: Config) -> None:
    """To whole multiples of a 7th of the largest of a row, and nothing else is changed."""
    plain, few = (load_model(model_config(llama_folder, quantize=bits)) for bits in (None, "4bit"))
    there = dict(few.module.named_parameters())
    for name, weight in plain.module.named_parameters():
        if ".layers." in name and weight.ndim == 2:
            multiple = there[name] / weight.abs().amax(1, keepdim=True) * 7
            assert (multiple - multiple.round()).abs().max() < 1e-5
            assert not torch.equal(there[name], weight)
        else:
            assert torch.equal(there[name], weight)


@pytest.mark.usefixtures("rounding")
def test_it_is_part_of_what_a_member_is(llama_folder: Path, tmp_path: Path) -> None:
    plain = config_of({"model": "local", "model.path": str(llama_folder), "sae.width": 64, "data.context": 16})
    few = replace(plain, model=replace(plain.model, quantize="4bit"))
    assert member_identity(plain) != member_identity(few)
    assert stream_key(plain) != stream_key(few)
    assert [member.label.rpartition("-")[2] for member in plan_sweep([plain, few]).members] == ["w64", "4bit"]
    key = cell_key(config_entries(few), None)
    assert key["model"] == f"{llama_folder} + 4bit"
    assert cell_title(key).startswith(f"{llama_folder.name} + 4bit · ")


def test_what_transformers_is_told(llama_folder: Path, model_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of its documentation; on the model's own device, or where `model.device_map` says."""
    told: list[dict[str, Any]] = []
    stand_in(monkeypatch)

    def asked(**how: Any) -> RoundingConfig:
        told.append(how)
        return RoundingConfig()

    monkeypatch.setattr("transformers.BitsAndBytesConfig", asked)
    device, dtype = torch.device("cpu"), torch.bfloat16
    eight, four, spread = (
        quantised.quantising(model_config(llama_folder, quantize=bits, device_map=to), device, dtype)
        for bits, to in (("8bit", None), ("4bit", None), ("4bit", "auto"))
    )
    assert eight["device_map"] == four["device_map"] == {"": device}
    assert "device_map" not in spread
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    assert told == [{"load_in_8bit": True}, nf4, nf4]


def test_without_the_library_or_a_device_for_it(
    llama_folder: Path, model_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = model_config(llama_folder, quantize="8bit")
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    missing = r"model\.quantize=8bit needs the package bitsandbytes: pip install 'sae-sweep\[bitsandbytes\]'"
    with pytest.raises(ConfigError, match=missing):
        load_model(few)
    with pytest.raises(ConfigError, match=missing):
        plan_sweep([config_of({"model": "demo", "model.quantize": "8bit"})])
    monkeypatch.setattr(quantised, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(supported_torch_devices={"cuda", "xpu"}))
    with pytest.raises(ConfigError, match=r"has nothing for cpu, but for cuda, xpu"):
        load_model(few)
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace())
    with pytest.raises(ConfigError, match="bitsandbytes cannot be used here"):
        load_model(few)


@pytest.mark.usefixtures("rounding")
def test_a_checkpoint_that_is_quantised_already(
    llama_folder: Path, model_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the hub, whose config.json planning has not seen."""
    monkeypatch.setattr("tests.model.quantising.Rounding.pre_quantized", True, raising=False)
    module = SimpleNamespace(hf_quantizer=SimpleNamespace(pre_quantized=True))
    with pytest.raises(ConfigError, match=r"model\.path=.* is quantised already; give the checkpoint"):
        quantised.quantised(module, model_config(llama_folder, quantize="8bit"))  # type: ignore[arg-type]


@pytest.mark.evidence
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_bitsandbytes_in_each_architecture(case: Case, bits: str, dtype: str) -> None:
    """Each kind of site is where it was, and the model goes on from it."""
    few = load_model(replace(case.model.config, quantize=bits, dtype=dtype))
    assert {type(part).__name__ for part in few.backbone.modules()} & {"Linear8bitLt", "Linear4bit"}
    Suffix(few, [f"blocks.1.{HOOK_OF_KIND[kind]}" for kind in case.kinds])


@pytest.mark.evidence
@pytest.mark.parametrize(("bits", "error"), [("8bit", 0.05), ("4bit", 0.3)])
def test_bitsandbytes_itself(bits: str, error: float, tmp_path: Path, tokens_RT: Tensor) -> None:
    """The model that ships, on a CPU: close to what it is, continued from each site to its own end, with gradients; and
    a sweep of it says in how many bits it was."""
    import bitsandbytes

    given = ["model.device=cpu", f"model.quantize={bits}", f"output_dir={tmp_path}", "data.context=16"]
    config = config_of([*given, "sae.width=64", "training.tokens=4096", "training.batch_size=128", "tracking=none"])
    plain, few = load_model(replace(config.model, quantize=None)), load_model(config.model)
    kind = bitsandbytes.nn.Linear8bitLt if bits == "8bit" else bitsandbytes.nn.Linear4bit
    linear = [part for part in few.backbone.modules() if isinstance(part, nn.Linear)]
    assert linear
    assert all(isinstance(part, kind) for part in linear)
    assert type(few.lm_head) is nn.Linear
    exact_RTD, found_RTD = plain.final_hidden(tokens_RT), few.final_hidden(tokens_RT)
    assert 1e-3 < (found_RTD - exact_RTD).norm() / exact_RTD.norm() < error
    hooks = [f"blocks.1.{HOOK_OF_KIND[kind]}" for kind in HOOK_OF_KIND if kind not in ("router", "experts_out")]
    suffix = Suffix(few, hooks)
    clean = suffix.clean(tokens_RT)
    for hook in hooks:
        value_RTd = clean.activations[hook].clone().requires_grad_()
        final_RTD = suffix.run(hook, clean, value_RTd)
        torch.testing.assert_close(final_RTD, clean.final_RTD, rtol=1e-4, atol=1e-4)
        assert torch.autograd.grad(final_RTD.square().sum(), value_RTd)[0].abs().max() > 0
    assert cache_entries(config)["versions"]["bitsandbytes"] == bitsandbytes.__version__
    (outcome,) = run_sweep([config])
    assert outcome.state == "finished"
    assert json.loads((outcome.folder / "cfg.json").read_text())["metadata"]["model_quantize"] == bits
