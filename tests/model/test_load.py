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
from sae_sweep.model.facts import model_facts
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


Altered = Callable[..., ModelConfig]


@pytest.fixture
def altered(llama_folder: Path, tmp_path: Path, model_config: Config) -> Altered:
    """The model with tensors more, or others."""

    def make(**tensors: Tensor) -> ModelConfig:
        shutil.copytree(llama_folder, tmp_path, dirs_exist_ok=True)
        weights = load_file(llama_folder / "model.safetensors") | tensors
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
        return model_config(tmp_path)

    return make


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.3.mlp.up_proj.lora_A.weight",
        "model.layers.2.post_feedforward_layernorm.weight",
        "model.layers.4.mlp.up_proj.weight",
        "model.embed_positions.weight",
        "layers.1.mlp.adapter.weight",
        "lm_head.bias",
    ],
)
def test_a_tensor_that_text_would_go_through_is_refused(name: str, altered: Altered) -> None:
    """It was another model, which a bias, a norm, an adapter, a fifth block or positions belong to."""
    config = altered(**{name: torch.ones(32), "v_head.summary.weight": torch.ones(1, 32)})
    with pytest.raises(ConfigError, match=rf"1 of its tensors are of no part that .* has \({name}, \.\.\.\)"):
        load_model(config)


@pytest.mark.parametrize(
    "name",
    [
        *("v_head.summary.weight", "score.weight", "mtp.0.norm.weight", "more"),
        *("model.vision_tower.patch.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"),
        *("model.layers.0.attn.masked_bias", "model.layers.0.attention.bias"),
    ],
)
def test_what_stands_beside_the_language_model_changes_no_number(
    name: str, altered: Altered, llama_folder: Path, model_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    tokens_RT = torch.tensor([[1, 5, 7]])
    own = load_model(model_config(llama_folder)).final_hidden(tokens_RT)
    assert torch.equal(load_model(altered(**{name: torch.ones(2, 2)})).final_hidden(tokens_RT), own)
    assert "inv_freq" in name or f"1 of its tensors are not read ({name}, ...)" in caplog.text


def test_weights_of_whole_numbers_are_refused(altered: Altered) -> None:
    """They are codes of a quantisation, whatever config.json says."""
    config = altered(**{"model.layers.1.mlp.up_proj.weight": torch.ones(80, 32, dtype=torch.int8)})
    with pytest.raises(ConfigError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds whole numbers, as quantised"):
        load_model(config)


@pytest.mark.parametrize("name", ["quantize_config.json", "hf_quant_config.json"])
def test_what_quantises_leaves_a_file(name: str, altered: Altered) -> None:
    config = altered()
    (Path(str(config.path)) / name).write_text("{}")
    with pytest.raises(ConfigError, match=rf"the folder has {name}, so its weights are quantised"):
        model_facts(config)


def test_quantised_language_part_of_a_model_that_sees(altered: Altered) -> None:
    config = altered()
    file = Path(str(config.path)) / "config.json"
    text = {"text_config": {"quantization_config": {"quant_method": "fp8"}}}
    file.write_text(json.dumps(json.loads(file.read_text()) | text))
    with pytest.raises(ConfigError, match=r"has a quantization_config \(fp8\)"):
        model_facts(config)


def test_weights_beside_those_that_are_read(altered: Altered, caplog: pytest.LogCaptureFixture) -> None:
    """Told of; an adapter's are refused."""
    config = altered()
    folder = Path(str(config.path))
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    load_model(config)
    assert "consolidated.safetensors is not read; model.safetensors is" in caplog.text
    (folder / "consolidated.safetensors").rename(folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"has adapter_model\.safetensors, and its adapter would be left out"):
        load_model(config)


def test_a_tokenizer_that_may_be_another_models_is_told_of(
    build_model: Callable[..., Path], model_config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """Fewer than half of the ids, or another BOS."""
    large = build_model("v600", LlamaConfig, vocab_size=600, num_hidden_layers=1, bos_token_id=5)
    load_model(model_config(large))
    assert "its tokenizer has 259 ids, and the model's vocabulary is of 600" in caplog.text
    assert "its tokenizer's BOS has id 1, with which rows begin, and that of config.json is 5" in caplog.text


def test_a_mac_takes_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's GPU is refused where it is asked for, and not taken where nothing is."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cpu")
    for name in ("mps", "mps:0"):
        with pytest.raises(ConfigError, match=rf"model\.device={name}: Apple's GPU has no float64"):
            resolve_device(name)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"model\.device=cuda: torch sees no CUDA"):
        resolve_device("cuda")
    for name in ("tpu", "cuda:", "cuda:x", "cpu:0"):
        with pytest.raises(ConfigError, match=rf"model\.device={name} is not auto, cpu, cuda or cuda:N"):
            resolve_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"model\.device=cuda:2: there are 2"):
        resolve_device("cuda:2")
