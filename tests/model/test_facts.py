import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.facts import ModelFacts, model_facts, model_folder
from sae_sweep.model.sites import parse_hook, site_width

Config = Callable[..., ModelConfig]


def _folder(path: Path, entries: object) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(entries))
    (path / "model.safetensors").write_bytes(b"")
    return path


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("gpt2", ModelFacts(32, 4, 4, 8, 128, 300)),
        ("llama", ModelFacts(32, 4, 4, 8, 80, 300)),
        ("neox", ModelFacts(32, 4, 4, 8, 80, 300)),
        ("gemma", ModelFacts(32, 4, 4, 16, 80, 300)),
    ],
)
def test_facts_of_real_folders(
    name: str, facts: ModelFacts, request: pytest.FixtureRequest, model_config: Config
) -> None:
    config = model_config(request.getfixturevalue(f"{name}_folder"))
    assert model_facts(config) == facts


def test_facts_of_other_names_and_nesting(tmp_path: Path, model_config: Config) -> None:
    inner = {"d_model": 10, "num_layers": 2, "num_heads": 5, "ffn_dim": 7, "vocab_size": 11}
    config = model_config(_folder(tmp_path / "m", {"hidden_size": None, "text_config": inner}))
    assert model_facts(config) == ModelFacts(10, 2, 5, 2, 7, 11)


def test_facts_of_experts_and_of_a_model_without_attention(tmp_path: Path, model_config: Config) -> None:
    sizes = {"hidden_size": 10, "num_hidden_layers": 2, "intermediate_size": 7, "vocab_size": 11}
    experts = model_config(_folder(tmp_path / "e", {**sizes, "num_attention_heads": 5, "n_routed_experts": 6}))
    assert model_facts(experts) == ModelFacts(10, 2, 5, 2, 7, 11, n_experts=6)
    assert model_facts(model_config(_folder(tmp_path / "s", {**sizes, "state_size": 4}))).n_heads == 0
    kinds = {"layer_types": ["linear_attention", "full_attention"], "num_attention_heads": 5}
    linear = {"linear_num_value_heads": 3, "linear_value_head_dim": 4}
    hybrid = model_facts(model_config(_folder(tmp_path / "h", {**sizes, **kinds, **linear})))
    widths = [site_width(parse_hook(f"blocks.{layer}.attn.hook_z"), hybrid) for layer in range(2)]
    assert widths == [12, 10]
    counted = model_facts(model_config(_folder(tmp_path / "l", {"layers_block_type": ["mamba"] * 3, **sizes, **kinds})))
    assert counted.n_layers == 2
    with pytest.raises(ConfigError, match=r"model\.n_heads is not in"):
        model_facts(model_config(_folder(tmp_path / "n", sizes)))


def test_the_configs_own_fields_come_first(llama_folder: Path, model_config: Config) -> None:
    assert model_facts(model_config(llama_folder, d_mlp=81)).d_mlp == 81


def test_hub_id_with_and_without_facts(model_config: Config) -> None:
    sizes = {"d_model": 8, "n_layers": 2, "n_heads": 2, "d_mlp": 16, "vocab_size": 99}
    config = model_config("some-org/some-model", **sizes)
    assert model_folder(config) is None
    assert model_facts(config) == ModelFacts(8, 2, 2, 4, 16, 99)
    with pytest.raises(ConfigError, match=r"model.d_model is needed to plan a hub model.*model.vocab_size"):
        model_facts(model_config("some-org/some-model"))
    with pytest.raises(ConfigError, match=r"model.d_mlp is needed"):
        model_facts(model_config("some-org/some-model", **{**sizes, "d_mlp": None}))


def test_errors_of_folders(tmp_path: Path, model_config: Config) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        model_folder(model_config(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        model_folder(model_config(tmp_path / "empty"))
    (tmp_path / "empty" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"no weights \(\*\.safetensors, or pytorch_model"):
        model_folder(model_config(tmp_path / "empty"))
    (tmp_path / "empty" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="not valid JSON"):
        model_facts(model_config(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"model\.n_layers is not in"):
        model_facts(model_config(_folder(tmp_path / "m", {"d_model": 10, "n_head": 5, "vocab_size": 11})))
    with pytest.raises(ConfigError, match=r"model\.d_model=0"):
        model_facts(model_config(tmp_path / "m", d_model=0))


@pytest.mark.parametrize(
    ("file", "entries", "message"),
    [
        ("adapter_config.json", {"peft_type": "LORA"}, r"has adapter_config\.json, .*give it as model\.adapter="),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, r"quantization_config \(gptq\)"),
    ],
)
def test_what_changes_a_model_is_not_left_out(
    file: str, entries: dict[str, object], message: str, llama_folder: Path, tmp_path: Path, model_config: Config
) -> None:
    shutil.copytree(llama_folder, tmp_path / "m")
    before = json.loads((tmp_path / "m" / file).read_text()) if (tmp_path / "m" / file).exists() else {}
    (tmp_path / "m" / file).write_text(json.dumps(before | entries))
    with pytest.raises(ConfigError, match=message) as refusal:
        model_facts(model_config(tmp_path / "m"))
    assert "\n" not in str(refusal.value)


def test_planning_imports_no_torch() -> None:
    code = "import sys, sae_sweep.model.facts, sae_sweep.model.sites; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
