"""Small random models in Hugging Face layout, each with a byte-level tokenizer, for any test that needs a model; and
packages that are installed for one test."""

import gc
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from sae_sweep.host import kinds
from tests.once import compose_once, find_medians_once

if TYPE_CHECKING:
    from sae_sweep.analyses.session.finished import FinishedSae

VOCABULARY = 300
SPECIALS = ("<eos>", "<bos>", "<pad>")  # ids 0, 1, 2; bytes follow

torch.set_num_threads(1)  # the matrices are tiny, and several test processes share the cores


@pytest.fixture(scope="session", autouse=True)
def once() -> Iterator[None]:
    """Or most of what tests of the command cost would be Hydra's."""
    with pytest.MonkeyPatch.context() as patch:
        compose_once(patch)
        find_medians_once(patch)
        yield


def pytest_collection_finish() -> None:
    """Nothing that stands now is garbage later: a collection, of which each sweep makes several, need not see it."""
    gc.collect()
    gc.freeze()


_tests = count(1)


def pytest_runtest_logfinish() -> None:
    """Nor what the first tests have imported, which is as much again."""
    if next(_tests) in (4, 16, 64, 256, 1024):
        gc.collect()
        gc.freeze()


def save_tokenizer(folder: Path) -> None:
    """A tokenizer whose tokens are the bytes, so that any text encodes."""
    tokens = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bytes_only = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    eos, bos, pad = SPECIALS
    PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, eos_token=eos, bos_token=bos, pad_token=pad, model_max_length=64
    ).save_pretrained(folder)


def save_model(folder: Path, config: PreTrainedConfig) -> Path:
    """A randomly initialised causal language model of this config, with its tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # initialised to constants, which would hide mistakes
                torch.nn.init.normal_(parameter, float("norm" in name and "weight" in name), 0.2)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


# initializer_range is ten times the usual: parts then write enough for a wrong one to show.
_COMMON = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "eos_token_id": 0,
    "bos_token_id": 1,
    "pad_token_id": 2,
}
_SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 80}


@pytest.fixture(scope="session")
def build_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Save a model of a config class, with the common small sizes where it does not give its own."""

    def build(name: str, config_class: type[PreTrainedConfig], **own: object) -> Path:
        sizes = {} if config_class is GPT2Config else _SIZES
        return save_model(tmp_path_factory.mktemp("models") / name, config_class(**{**_COMMON, **sizes, **own}))

    return build


@pytest.fixture(scope="session")
def gpt2_folder(build_model: Callable[..., Path]) -> Path:
    return build_model("gpt2", GPT2Config, n_embd=32, n_layer=4, n_head=4)


@pytest.fixture(scope="session")
def llama_folder(build_model: Callable[..., Path]) -> Path:
    return build_model("llama", LlamaConfig, num_key_value_heads=2)


def tuned(folder: Path, source: Path) -> Path:
    """A model with the weights of another, moved at random as training might move them."""
    shutil.copytree(source, folder)
    file, generator = folder / "model.safetensors", torch.Generator().manual_seed(1)
    weights = {
        name: tensor + 0.4 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in load_file(file).items()
    }
    save_file(weights, file, {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def tuned_folder(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To the llama what a chat model is to its base."""
    return tuned(tmp_path_factory.mktemp("models") / "tuned", llama_folder)


@pytest.fixture(scope="session")
def two_models(
    llama_folder: Path, tuned_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> "Mapping[str, FinishedSae]":
    """Crosscoders over both, by name, finished."""
    from tests.two_models import trained

    return trained(tmp_path_factory.mktemp("two"), llama_folder, tuned_folder)


@pytest.fixture(scope="session")
def neox_folder(build_model: Callable[..., Path]) -> Path:
    return build_model("neox", GPTNeoXConfig, use_parallel_residual=True)


@pytest.fixture(scope="session")
def gemma_folder(build_model: Callable[..., Path]) -> Path:
    return build_model("gemma", GemmaConfig, num_key_value_heads=1, head_dim=16)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Until the test ends, installs a package of that name, with texts by file and those of its entry points."""
    packages = []

    def made(package: str, files: Mapping[str, str], entry_points: str = "") -> None:
        information = f"../{package}-1.0.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        files = {**files, f"{information}/METADATA": metadata, f"{information}/entry_points.txt": entry_points}
        for name, text in files.items():
            file = tmp_path / "installed" / package / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        packages.append(package)
        monkeypatch.syspath_prepend(tmp_path / "installed")
        forget()

    def forget() -> None:
        kinds._installed.cache_clear()
        kinds._own.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] in packages]:
            del sys.modules[name]

    yield made
    forget()
