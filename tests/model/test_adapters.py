"""Adapters in peft's layout, merged when the model is loaded. LoRA's equation stands for peft, but in evidence."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_sweep.config.files import config_of
from sae_sweep.config.reading import config_entries
from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model import adapters
from sae_sweep.model.facts import model_folder
from sae_sweep.model.load import load_model
from sae_sweep.plan.fingerprints import check_same, digests, fingerprints, hashed
from sae_sweep.plan.groups import stream_key
from sae_sweep.plan.members import member_identity
from sae_sweep.reporting.cell import cell_key, cell_title
from tests.model.adapters import save_lora

Config = Callable[..., ModelConfig]


@pytest.fixture
def lora_equation(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from tests.model.adapters import stand_in

    yield from stand_in(monkeypatch)


@pytest.fixture
def adapter(llama_folder: Path, tmp_path: Path) -> Path:
    return save_lora(tmp_path / "adapter", llama_folder)


def _weights(config: ModelConfig) -> dict[str, Tensor]:
    return dict(load_model(config).module.state_dict())


@pytest.mark.usefixtures("lora_equation")
def test_the_adapter_is_in_the_weights(llama_folder: Path, adapter: Path, model_config: Config) -> None:
    """In float64, from the matrices that the adapter's file has: rank 2, alpha 6."""
    plain, adapted = (_weights(model_config(llama_folder, dtype="float64", adapter=a)) for a in (None, str(adapter)))
    given = load_file(adapter / "adapter_model.safetensors")
    for name, weight in plain.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        expected = weight
        if f"{key}.lora_A.weight" in given:
            up, down = (given[f"{key}.lora_{end}.weight"].double() for end in "BA")
            expected = weight + 3 * up @ down
            assert (expected - weight).abs().max() > 0.01
        torch.testing.assert_close(adapted[name], expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("lora_equation")
def test_it_is_part_of_what_a_member_is(llama_folder: Path, adapter: Path) -> None:
    plain = config_of({"model": "local", "model.path": str(llama_folder)})
    adapted = replace(plain, model=replace(plain.model, adapter=str(adapter)))
    assert member_identity(plain) != member_identity(adapted)
    assert stream_key(plain) != stream_key(adapted)
    kept = hashed(fingerprints(adapted))
    assert set(kept) >= {"model.path", "model.adapter"}
    assert set(kept["model.adapter"]["files"]) == {"adapter_config.json", "adapter_model.safetensors"}
    check_same(kept, adapted, "it")
    key = cell_key(config_entries(adapted), None)
    assert key["model"] == f"{llama_folder} + {adapter}"
    assert cell_title(key).startswith(f"{llama_folder.name} + adapter · ")
    save_lora(adapter, llama_folder, seed=1)
    assert digests(hashed(fingerprints(adapted)))["model.adapter"] != digests(kept)["model.adapter"]
    with pytest.raises(ConfigError, match=r"model\.adapter=.*adapter_model\.safetensors has other content"):
        check_same(kept, adapted, "it")


def test_without_peft_it_is_refused(
    llama_folder: Path, adapter: Path, model_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"model\.adapter=.* needs the package peft, .*: pip install 'sae-sweep\[peft\]'"
    ):
        load_model(model_config(llama_folder, adapter=str(adapter)))


@pytest.mark.usefixtures("lora_equation")
def test_what_is_no_adapter_of_the_model_is_refused(llama_folder: Path, adapter: Path, model_config: Config) -> None:
    def refused(message: str, **own: Any) -> None:
        with pytest.raises(ConfigError, match=message) as told:
            load_model(model_config(llama_folder, **{"adapter": str(adapter), **own}))
        assert "\n" not in str(told.value)

    refused(r"model\.adapter=/nowhere: no such folder", adapter="/nowhere")
    refused(r"lacks adapter_config\.json or adapter_model\.safetensors", adapter=str(llama_folder))
    with pytest.raises(ConfigError, match=r"give it as model\.adapter=.*, and its base model as model\.path"):
        model_folder(model_config(adapter))
    weights = load_file(adapter / "adapter_model.safetensors")
    more = {name.replace("layers.0", "layers.9"): t.clone() for name, t in weights.items()}
    save_file({**more, **weights}, adapter / "adapter_model.safetensors")
    refused(r"is of another model: 4 of its tensors have no place in .*, and 0 places none")
    save_file({name: t for name, t in weights.items() if "layers.1" not in name}, adapter / "adapter_model.safetensors")
    refused(r"is of another model: 0 of its tensors .*, and 4 places none")
    save_file({name: t[:, :3].contiguous() for name, t in weights.items()}, adapter / "adapter_model.safetensors")
    refused("cannot be merged into")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "PROMPT_TUNING"}))
    refused("cannot be merged into .*PROMPT_TUNING cannot be merged")


@pytest.mark.evidence
@pytest.mark.parametrize("own", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_pefts_own_adapters(
    own: dict[str, Any], llama_folder: Path, tmp_path: Path, model_config: Config, tokens_RT: Tensor
) -> None:
    """The model that is loaded gives what peft's gives with the adapter beside its weights, in float64."""
    import peft
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float64)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False, **own)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(base, config).double().eval()
    adapted.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = adapted(input_ids=tokens_RT, output_hidden_states=True).hidden_states[-1]
    found = load_model(model_config(llama_folder, dtype="float64", adapter=str(tmp_path)))
    plain = load_model(model_config(llama_folder, dtype="float64"))
    torch.testing.assert_close(found.final_hidden(tokens_RT), expected, rtol=0, atol=1e-6)  # it is saved in float32
    assert (plain.final_hidden(tokens_RT) - expected).abs().max() > 0.01
