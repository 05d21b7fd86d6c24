import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, LlamaConfig

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.load import _check_tokenizer, load_model, load_tokenizer, resolve_device
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
    (tmp_path / "model.safetensors").write_bytes(b"torn" * 50_000)
    with pytest.raises(ConfigError, match="cannot be loaded as a causal language model"):
        load_model(model_config(tmp_path))
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    # 300 x 32 of the embedding; 4 blocks with 2 x 32 x 80 at least in the MLP and 2 x 32 x 32 in attention.
    with pytest.raises(
        ConfigError, match=r"a model of 3\.83e\+04 numbers, .* have 43 bytes: .*git-lfs has not fetched"
    ):
        load_model(model_config(tmp_path))


def test_pickled_and_sharded_weights_are_the_same_model(
    llama_folder: Path, tmp_path: Path, model_config: Config, tokens_RT: Tensor
) -> None:
    plain = load_model(model_config(llama_folder))
    folders = {name: tmp_path / name for name in ("pickled", "sharded")}
    for folder in folders.values():
        shutil.copytree(llama_folder, folder)
        (folder / "model.safetensors").unlink()
    torch.save(load_file(llama_folder / "model.safetensors"), folders["pickled"] / "pytorch_model.bin")
    plain.module.save_pretrained(folders["sharded"], max_shard_size="40KB")  # type: ignore[operator]
    assert len([*folders["sharded"].glob("model-*.safetensors")]) > 1
    for folder in folders.values():
        found = load_model(model_config(folder))
        assert torch.equal(found.final_hidden(tokens_RT), plain.final_hidden(tokens_RT))


def test_a_tensor_of_another_shape_is_refused(llama_folder: Path, tmp_path: Path, model_config: Config) -> None:
    """By its name, without a table of transformers' own."""
    shutil.copytree(llama_folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 81}))
    with pytest.raises(
        ConfigError, match=r"model\.layers\.0\.mlp\.down_proj\.weight has the shape \[32, 80\], and \[32, 81\] by"
    ):
        load_model(model_config(tmp_path))


def test_a_tokenizer_of_another_model_is_refused(build_model: Callable[..., Path], model_config: Config) -> None:
    """Its ids would be read beyond the embedding's end: 259 are too many for 258 and just right for 259."""
    small, exact = (build_model(f"v{size}", LlamaConfig, vocab_size=size, num_hidden_layers=1) for size in (258, 259))
    assert load_model(model_config(exact)).tokenizer is not None
    with pytest.raises(ConfigError, match=r"tokenizer has ids up to 258 .* vocabulary of 258 ends at 257; give"):
        load_model(model_config(small))


def test_a_special_id_beyond_the_vocabulary_is_refused(llama_folder: Path, model_config: Config) -> None:
    """Whatever the vocabulary of the tokenizer says."""
    model = load_model(model_config(llama_folder))
    for name in ("bos_token_id", "eos_token_id"):
        ids = {"bos_token_id": 1, "eos_token_id": None, name: 300}
        model.tokenizer = SimpleNamespace(get_vocab=dict, all_special_ids=[1], **ids)
        with pytest.raises(
            ConfigError, match=rf"{name[:-3]} has id 300, and the model's vocabulary of 300 ends at 299"
        ):
            _check_tokenizer(model)
    model.tokenizer = SimpleNamespace(get_vocab=dict, all_special_ids=[1, None], bos_token_id=1, eos_token_id=None)
    with pytest.raises(ConfigError, match=r"its tokenizer's a special token has id None, and the model's vocabulary"):
        _check_tokenizer(model)


def test_an_encoder_that_reads_ahead_is_refused(build_model: Callable[..., Path], model_config: Config) -> None:
    encoder, decoder = (
        build_model(f"bert{decodes}", BertConfig, is_decoder=decodes, pad_token_id=0) for decodes in (False, True)
    )
    with pytest.raises(ConfigError, match=r"BertLMHeadModel reads ahead: what it makes of a token depends on later"):
        load_model(model_config(encoder))
    assert load_model(model_config(decoder)).facts.n_layers == 4


def test_tensors_that_are_not_read_are_told_of(
    llama_folder: Path, tmp_path: Path, model_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(llama_folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights |= {f"model.layers.{layer}.self_attn.q_proj.bias": torch.ones(32) for layer in range(4)}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    load_model(model_config(tmp_path))
    assert "4 of its tensors are not read (model.layers.0.self_attn.q_proj.bias, ...)" in caplog.text


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
