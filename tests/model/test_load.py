import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.load import load_model, load_tokenizer, resolve_device
from tests.model.conftest import Case

Config = Callable[..., ModelConfig]


def test_the_model_is_frozen_and_its_own(case: Case, tokens_RT: Tensor) -> None:
    model = case.model
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float64}
    torch.testing.assert_close(model.final_hidden(tokens_RT), case.reference.final_hidden(tokens_RT))
    assert model.tokenizer.decode(model.tokenizer("some text")["input_ids"]) == "some text"


def test_sdpa_attention_and_dtype(llama_folder: Path, model_config: Config) -> None:
    model = load_model(model_config(llama_folder, dtype="bfloat16"))
    assert model.module.config._attn_implementation == "sdpa"
    assert model.final_hidden(torch.tensor([[1, 5, 7]])).dtype == torch.bfloat16


def test_a_folder_without_tokenizer(llama_folder: Path, tmp_path: Path, model_config: Config) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(llama_folder / name, tmp_path)
    assert load_tokenizer(model_config(tmp_path)) is None
    assert load_model(model_config(tmp_path)).tokenizer is None
    with pytest.raises(ConfigError, match=r"transformer_lens needs a tokenizer"):
        load_model(model_config(tmp_path, backend="transformer_lens"))


def test_a_hub_model_without_tokenizer_is_not_a_hub_out_of_reach(
    model_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = model_config(Path("nobody/a-model-of-no-one"))
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", raising(OSError("Can't load tokenizer")))
    assert load_tokenizer(config) is None
    unreachable = OSError("We couldn't connect to the hub")
    unreachable.__cause__ = LocalEntryNotFoundError("not in the cache")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", raising(unreachable))
    with pytest.raises(ConfigError, match=r"nobody/.*: its tokenizer cannot be loaded \(We couldn't connect"):
        load_tokenizer(config)


def raising(error: Exception) -> Callable[..., Any]:
    def from_pretrained(*_: Any, **__: Any) -> Any:
        raise error

    return from_pretrained


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"backend": "onnx"}, r"model\.backend=onnx is unknown"),
        ({"dtype": "int8"}, r"model\.dtype=int8 is unknown"),
        ({"d_mlp": 81}, r"model\.d_mlp=81, but the loaded model's is 80"),
        ({"vocab_size": 299}, r"model\.vocab_size=299"),
        ({"n_layers": 3}, r"model\.n_layers=3"),
    ],
)
def test_errors(own: dict[str, object], message: str, llama_folder: Path, model_config: Config) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(model_config(llama_folder, **own))


def test_weights_that_lack_a_tensor_are_refused(llama_folder: Path, tmp_path: Path, model_config: Config) -> None:
    shutil.copytree(llama_folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lack 1 of the model's tensors \(model\.layers\.1\.mlp\.up_proj"):
        load_model(model_config(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigError, match="cannot be loaded as a causal language model"):
        load_model(model_config(tmp_path))


def test_a_tokenizer_of_another_model_is_refused(build_model: Callable[..., Path], model_config: Config) -> None:
    """Its ids would be read beyond the embedding's end: 259 are too many for 258 and just right for 259."""
    small, exact = (build_model(f"v{size}", LlamaConfig, vocab_size=size, num_hidden_layers=1) for size in (258, 259))
    assert load_model(model_config(exact)).tokenizer is not None
    with pytest.raises(ConfigError, match=r"tokenizer has ids up to 258 .* vocabulary of 258 ends at 257; give"):
        load_model(model_config(small))


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"model\.device=cuda: torch sees no CUDA"):
        resolve_device("cuda")
    for name in ("tpu", "cuda:", "cuda:x", "cpu:0"):
        with pytest.raises(ConfigError, match=rf"model\.device={name} is unknown"):
            resolve_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"model\.device=cuda:2: there are 2"):
        resolve_device("cuda:2")
