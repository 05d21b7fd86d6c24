"""From a config to a language model in memory."""

import logging
import os
from typing import Any

import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError, one_line
from sae_sweep.host.network import look_at_hub
from sae_sweep.model.adapters import adapter_folder, merged
from sae_sweep.model.blocks import close
from sae_sweep.model.device_map import check_placed, placing
from sae_sweep.model.facts import (
    check_unquantised,
    check_weights,
    complete_sizes,
    model_facts,
    model_folder,
    read_sizes,
    unknown_device,
)
from sae_sweep.model.head import check_head
from sae_sweep.model.language_model import LanguageModel, Passes
from sae_sweep.model.mapping import map_blocks
from sae_sweep.model.quantised import check_library, quantised, quantising
from sae_sweep.model.weights import check_files, check_tensors

__all__ = ["LanguageModel", "Passes", "load_model", "load_tokenizer", "resolve_device", "resolve_dtype"]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
log = logging.getLogger(__name__)
FEW_IDS = 0.5
"""A tokenizer with fewer ids than this share of the vocabulary may be another model's."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "spiece.model")


def load_model(config: ModelConfig) -> LanguageModel:
    """The model of a config on its device, frozen and in eval mode, checked against the facts it was planned with.

    Raises ConfigError for anything a user can get wrong, before weights are read where that can be told.
    """
    _quiet()
    facts = model_facts(config)
    check_weights(config, facts)
    if (folder := model_folder(config)) is not None:
        check_files(folder, config)
    adapter_folder(config)
    check_library(config)
    device, dtype = resolve_device(config.device), resolve_dtype(config.dtype)
    if config.backend not in ("hf", "transformer_lens"):
        raise ConfigError(f"model.backend={config.backend} is unknown; known: hf, transformer_lens")
    module = merged(_load_module(config, device, dtype), config).eval().requires_grad_(False)
    if config.device_map is None and config.quantize is None:  # else it has been loaded to where it is to be
        module = module.to(device)
    model = LanguageModel(module, load_tokenizer(config), device, config, facts)
    _check_facts(model)
    _check_tokenizer(model)
    try:
        _measure(model, dtype)
    except RuntimeError as error:
        raise ConfigError(
            f"model.path={config.path} cannot run with model.dtype={config.dtype} on {device}: {one_line(error)}"
        ) from error
    except (TypeError, KeyError, IndexError, AttributeError, ValueError, AssertionError) as error:
        what = f"{type(error).__name__}: {one_line(error)}"  # of a model that is built like none that is known
        how = "" if config.device_map is None else " by this model.device_map"
        raise ConfigError(
            f"model.path={config.path} is not supported: {what}, as it reads a few tokens{how}"
        ) from error
    return model


def load_tokenizer(config: ModelConfig) -> Any:
    """The model's tokenizer, or None where there is none beside the model."""
    folder = model_folder(config)
    if folder is not None and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    _quiet()
    try:
        return AutoTokenizer.from_pretrained(_source(config), **_loading_options(config))
    except Exception as error:  # the tokenizers library raises bare ones
        unreachable = isinstance(error.__cause__, LocalEntryNotFoundError)
        if folder is None and isinstance(error, OSError | ValueError) and not unreachable:
            return None  # a hub model without a tokenizer
        raise ConfigError(f"model.path={config.path}: its tokenizer cannot be loaded ({one_line(error)})") from error


def resolve_device(name: str) -> torch.device:
    """The device `model.device` names: auto is CUDA where there is one. ConfigError for one that is not here.

    Of several ranks on a host each has the device of its number.
    """
    cuda = torch.cuda.is_available()
    local = os.environ.get("LOCAL_RANK")
    if local is not None and cuda and name in ("auto", "cuda"):
        name = f"cuda:{local}"
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    kind, _, index = name.partition(":")
    if name != "cpu" and (kind != "cuda" or (index and not index.isdecimal()) or name.endswith(":")):
        raise unknown_device(name)
    if kind == "cuda" and not cuda:
        raise ConfigError(f"model.device={name}: torch sees no CUDA device here; use model.device=auto or cpu")
    if index and int(index) >= torch.cuda.device_count():
        raise ConfigError(f"model.device={name}: there are {torch.cuda.device_count()} CUDA devices, numbered from 0")
    return torch.device(name)


def resolve_dtype(name: str) -> torch.dtype:
    """The dtype `model.dtype` names."""
    if name not in _DTYPES:
        raise ConfigError(f"model.dtype={name} is unknown; known: {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _quiet() -> None:
    """Let transformers draw nothing: what matters of its warnings and tables is told here, in a line each."""
    disable_progress_bar()
    set_verbosity(logging.CRITICAL)


def _source(config: ModelConfig) -> str:
    folder = model_folder(config)
    return str(config.path if folder is None else folder)


def _loading_options(config: ModelConfig) -> dict[str, Any]:
    local = model_folder(config) is not None
    if not local:
        look_at_hub()
        os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # nobody asked the hub to convert pickled weights
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code, "local_files_only": local}
    return options if local or config.revision is None else {**options, "revision": config.revision}


def _load_module(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
    # Left to itself transformers takes sdpa attention wherever the architecture computes the same with it, and weights
    # as safetensors where there are such. Pickled ones are read as tensors alone.
    options = {"dtype": dtype, "weights_only": True, "output_loading_info": True, **_loading_options(config)}
    options |= quantising(config, device, dtype) | placing(config)
    try:
        loaded: Any = _kind(config).from_pretrained(
            _source(config),
            **options,
            ignore_mismatched_sizes=True,  # they are refused below, by their names
        )
    except Exception as error:  # transformers, safetensors and remote code raise types of their own
        raise ConfigError(
            f"model.path={config.path} cannot be loaded as a causal language model: {one_line(error)}"
        ) from error
    module, info = loaded
    assert isinstance(module, nn.Module)
    if dtype == torch.float64 and hasattr(module, "set_experts_implementation"):
        # The grouped products of others have no float64. To mypy any attribute of a module is a tensor or a module.
        module.set_experts_implementation("eager")  # type: ignore[operator]
    check_tensors(module, info, config)
    check_placed(module, config)
    return quantised(module, config)


def _kind(config: ModelConfig) -> Any:
    """What loads the model: as a causal language model, or else as one that also sees, of which the text is read."""
    found = type(AutoConfig.from_pretrained(_source(config), **_loading_options(config)))
    sees = found in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and found not in MODEL_FOR_CAUSAL_LM_MAPPING
    return AutoModelForImageTextToText if sees else AutoModelForCausalLM


def _check_facts(model: LanguageModel) -> None:
    # To mypy any attribute of a module is a tensor or a module; this one is transformers' config.
    text_config = model.module.config.get_text_config()  # type: ignore[operator, union-attr]
    entries = text_config.to_dict()
    if model.config.quantize is None:
        check_unquantised(entries, model.config)
    loaded = complete_sizes(read_sizes(entries), guess=True)
    for name, size in loaded.items():
        planned = getattr(model.facts, name)
        if size is not None and size != planned:
            raise ConfigError(f"model.{name}={planned}, but the loaded model's is {size}; set it so, or to null")


def _check_tokenizer(model: LanguageModel) -> None:
    tokenizer, size = model.tokenizer, model.facts.vocab_size
    if tokenizer is None:
        return
    beyond = {name: index for name, index in tokenizer.get_vocab().items() if index >= size}
    if beyond:
        name, index = max(beyond.items(), key=lambda item: item[1])
        raise ConfigError(
            f"model.path={model.config.path}: its tokenizer has ids up to {index} ({name!r}), and the model's"
            f" vocabulary of {size} ends at {size - 1}; give the tokenizer that the model was trained with"
        )
    _tell_of_another(model)
    special = [("bos_token", tokenizer.bos_token_id), ("eos_token", tokenizer.eos_token_id)]
    found = [(name, index) for name, index in special if index is not None]
    for name, index in [*found, *(("a special token", index) for index in tokenizer.all_special_ids)]:
        if index is None or not 0 <= index < size:
            raise ConfigError(
                f"model.path={model.config.path}: its tokenizer's {name} has id {index}, and the model's vocabulary of"
                f" {size} ends at {size - 1}; give the tokenizer that the model was trained with"
            )


def _tell_of_another(model: LanguageModel) -> None:
    """Tell of what a tokenizer of another model, with fewer ids, shows itself by."""
    size, config = model.facts.vocab_size, getattr(model.module, "config", None)
    ids = len(model.tokenizer.get_vocab())
    if ids < FEW_IDS * size:
        log.warning(
            "model.path=%s: its tokenizer has %d ids, and the model's vocabulary is of %d: is it the one that the"
            " model was trained with?",
            *(model.config.path, ids, size),
        )
    own, stated = model.tokenizer.bos_token_id, getattr(config, "bos_token_id", None)
    if isinstance(own, int) and isinstance(stated, int) and own != stated:
        log.warning(
            "model.path=%s: its tokenizer's BOS has id %d, with which rows begin, and that of config.json is %d",
            *(model.config.path, own, stated),
        )


@torch.no_grad()
def _measure(model: LanguageModel, dtype: torch.dtype) -> None:
    """Find what the backend needs in the model, and check its head, on a few tokens."""
    probe_RT = model.probe_tokens()
    if model.config.backend == "hf":
        model.block_map = map_blocks(model.module, model.facts.n_layers, lambda: model.final_hidden(probe_RT))
    else:
        model.bridge = _bridge(model, dtype)
    _check_causal(model, probe_RT)
    check_head(model, probe_RT)


def _check_causal(model: LanguageModel, tokens_RT: Tensor) -> None:
    """Raises ConfigError where what the model makes of a token depends on those after it, as an encoder's does."""
    other_RT = tokens_RT.clone()
    other_RT[:, -1] = (other_RT[:, -1] + 1) % model.facts.vocab_size
    # In one pass: what is rounded to 8 bits depends on all that is read together.
    before_RTD, after_RTD = model.final_hidden(torch.cat([tokens_RT, other_RT]))[:, :-1].chunk(2)
    if not close(after_RTD.double(), before_RTD.double(), before_RTD.dtype):
        raise ConfigError(
            f"model.path={model.config.path}: {type(model.module).__name__} reads ahead: what it makes of a token"
            " depends on later ones; give a causal language model"
        )


def _bridge(model: LanguageModel, dtype: torch.dtype) -> Any:
    # Imported here: it takes seconds, and only this backend needs it.
    from transformer_lens.model_bridge import TransformerBridge

    if model.tokenizer is None:
        raise ConfigError(
            f"model.backend=transformer_lens needs a tokenizer beside the model, and model.path={model.config.path}"
            " has none; use model.backend=hf"
        )
    return TransformerBridge.boot_transformers(
        _source(model.config),
        device=str(model.device),
        dtype=dtype,
        tokenizer=load_tokenizer(model.config),  # its own: the bridge changes it
        hf_model=model.module,
        trust_remote_code=model.config.trust_remote_code,
    )
