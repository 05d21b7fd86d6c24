"""What planning needs to know of a language model: its sizes, read without loading it and without torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.host.json_files import read_object

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
LARGEST = 10**9
"""Of sizes: beyond it is no model's."""
MANY_TIMES = 2
"""More numbers than so many times the bytes are no rounding: a number has a byte at least."""
# The names architectures give the same size in their config.json.
_ALIASES = {
    "d_model": ("hidden_size", "n_embd", "d_model", "n_embed"),
    "n_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "n_heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "d_head": ("v_head_dim", "head_dim"),  # of values, which heads give, where keys have another
    "d_mlp": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "vocab_size": ("vocab_size",),
}
FACTS = tuple(_ALIASES)
"""The keys of `model` that are facts, which a folder's config.json says."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_LINEAR_HEADS = ("linear_num_value_heads", "linear_value_head_dim")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
"""What may hold the weights of a folder; pickled ones are read only where there are no others."""
QUANTISED = ("quantize_config.json", "quant_config.json", "quantization_config.json", "hf_quant_config.json")
"""What tools that quantise weights leave beside them."""
ADAPTER = "adapter_config.json"
"""What peft leaves beside an adapter: low-rank updates of another model's weights."""


@dataclass(frozen=True)
class ModelFacts:
    """A model's sizes. `d_mlp` is the width inside the MLP, `d_head` that of what one attention head gives."""

    d_model: int
    n_layers: int
    n_heads: int
    d_head: int
    d_mlp: int
    vocab_size: int
    n_experts: int | None = None
    """That a token's router chooses from in a block, where config.json says so."""
    linear_z: Mapping[int, int] = field(default_factory=dict)
    """By block of linear attention, how many numbers its heads give together, which are not n_heads times d_head."""


def model_folder(config: ModelConfig) -> Path | None:
    """The local folder of the model, or None when `model.path` is a hub id.

    Raises ConfigError when the folder is missing, or lacks config.json or safetensors weights.
    """
    if config.path is None:
        folder = Path(str(files("sae_sweep") / "assets" / "demo_lm"))
        if not folder.is_dir():
            raise ConfigError(
                "model.path=null: the demo model is not in this installation; give model.path=DIR_OR_HUB_ID"
            )
    else:
        folder = Path(config.path).expanduser()
        if not folder.exists() and HUB_ID.fullmatch(config.path):
            return None
    _check_folder(folder, config.path)
    return folder


def model_facts(config: ModelConfig) -> ModelFacts:
    """The model's sizes: the config's own fields where given, the folder's config.json for the others.

    Raises ConfigError for a folder that cannot be loaded, and for a size that is found in neither place.
    """
    folder = model_folder(config)
    entries = {} if folder is None else _read_json(folder / "config.json", config.path)
    check_unquantised(entries, config)
    found = read_sizes(entries)
    sizes = complete_sizes(
        {name: _given(config, name) or found.get(name) for name in _ALIASES}, guess=folder is not None
    )
    missing = [f"model.{name}" for name, value in sizes.items() if value is None]
    if missing and folder is None:
        raise ConfigError(
            f"model.path={config.path}: no such folder here; should it be a hub id, planning uses no network, and"
            f" {missing[0]} is needed to plan a hub model; give {', '.join(missing)}"
        )
    if missing:
        raise ConfigError(f"{missing[0]} is not in {folder}/config.json under a known name; give {', '.join(missing)}")
    known: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    whole = {**entries, **_text_part(entries)}
    return ModelFacts(**known, n_experts=_first_integer(whole, _EXPERTS), linear_z=_linear_z(whole))


def own_facts(config: ModelConfig) -> ModelConfig:
    """A local folder's config.json is right about it, whatever the yaml that named another model says."""
    if model_folder(config) is None:
        return config
    nothing: dict[str, Any] = dict.fromkeys(FACTS)
    unstated = replace(config, **nothing)
    try:
        model_facts(unstated)
    except ConfigError:
        return config  # a config.json that leaves sizes out: the stated ones are all there is
    return unstated


def _linear_z(entries: Mapping[str, Any]) -> dict[int, int]:
    kinds, sizes = entries.get("layer_types"), [_first_integer(entries, (name,)) for name in _LINEAR_HEADS]
    if not isinstance(kinds, list) or None in sizes:
        return {}
    return {layer: prod(filter(None, sizes)) for layer, kind in enumerate(kinds) if kind == "linear_attention"}


def stated_dtype(config: ModelConfig) -> str:
    """What a folder's config.json says that its weights are of. Raises ConfigError where it does not say it, or there
    is no folder here."""
    folder = model_folder(config)
    entries = {} if folder is None else _read_json(folder / "config.json", config.path)
    entries = {**entries, **_text_part(entries)}
    stated = entries.get("dtype") or entries.get("torch_dtype")
    if not isinstance(stated, str):
        where = "planning uses no network" if folder is None else f"{folder}/config.json does not say it"
        raise ConfigError(
            f"model.dtype=auto is the checkpoint's own, and {where}; give model.dtype=bfloat16 or another"
        )
    return stated.removeprefix("torch.")


def unknown_device(name: str) -> ConfigError:
    """The error for a device that there is not, or that is not supported."""
    if name.partition(":")[0] == "mps":
        return ConfigError(
            f"model.device={name}: Apple's GPU has no float64, in which metrics are summed, and is not supported; take"
            " auto or cpu, which runs there"
        )
    return ConfigError(f"model.device={name} is not auto, cpu, cuda or cuda:N")


def check_unquantised(entries: Mapping[str, Any], config: ModelConfig) -> None:
    """Raises ConfigError where a model's config.json says that its weights are quantised."""
    entries = {**_text_part(entries), **{key: value for key, value in entries.items() if value}}
    for key in ("quantization_config", "compression_config"):
        if stated := entries.get(key):
            method = stated.get("quant_method", "of unknown method") if isinstance(stated, Mapping) else stated
            raise ConfigError(
                f"model.path={config.path}: config.json has a {key} ({method}), and activations of quantised weights"
                " are not supported; give the checkpoint it was made from, and model.quantize=8bit or 4bit"
            )


def check_weights(config: ModelConfig, facts: ModelFacts) -> None:
    """Raises ConfigError where the weights of a local folder are far fewer than its config.json says: what would be
    made in their place may have no room at all."""
    folder = model_folder(config)
    if folder is None:
        return
    held = sum(file.stat().st_size for file in weight_paths(folder))
    block = 2 * facts.d_model * facts.d_mlp + 2 * facts.d_model * facts.n_heads * facts.d_head
    numbers = facts.vocab_size * facts.d_model + facts.n_layers * block
    if numbers > MANY_TIMES * held:
        raise ConfigError(
            f"model.path={config.path}: config.json is of a model of {numbers:.3g} numbers, and its weights have"
            f" {held:,} bytes: they are not of one model, or not there yet (files that git-lfs has not fetched?)"
        )


def weight_paths(folder: Path) -> list[Path]:
    """The files of a folder that hold its weights: safetensors, or where there are none the pickled."""
    return next(filter(None, ([*folder.glob(pattern)] for pattern in WEIGHTS)), [])


def longest_row(config: ModelConfig) -> int | None:
    """Tokens of the longest row that the model was made for; None where no config.json of a folder says it."""
    folder = model_folder(config)
    return longest_of({} if folder is None else _read_json(folder / "config.json", config.path))


def longest_of(entries: Mapping[str, Any]) -> int | None:
    """The same, of what a config.json says."""
    return _first_integer({**entries, **_text_part(entries)}, _POSITIONS)


def check_context(config: ModelConfig, context: int) -> None:
    """Raises ConfigError for rows of more tokens than the model was made for, where its config.json says how many."""
    longest = longest_row(config)
    if longest is not None and context > longest:
        raise ConfigError(
            f"data.context={context}: {config.name} reads rows of at most {longest} tokens (config.json); lower it"
        )


def _text_part(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a model that also sees: what it says of its language model."""
    text = entries.get("text_config")
    return text if isinstance(text, Mapping) else {}


def read_sizes(entries: Mapping[str, Any]) -> dict[str, int | None]:
    """The sizes a config.json states under the name any architecture gives them; None for what it leaves out."""
    entries = {**entries, **_text_part(entries)}
    sizes = {name: _first_integer(entries, aliases) for name, aliases in _ALIASES.items()}
    kinds = entries.get("layers_block_type")
    if sizes["n_layers"] is None and isinstance(kinds, list) and kinds:
        sizes["n_layers"] = len(kinds)
    if sizes["n_heads"] is None and "state_size" in entries:
        sizes |= {"n_heads": 0, "d_head": 0}  # a state-space model attends with none
    return sizes


def complete_sizes(sizes: Mapping[str, int | None], *, guess: bool) -> dict[str, int | None]:
    """Derive d_head, and with `guess` d_mlp = 4 d_model, as architectures do that leave them out."""
    full = dict(sizes)
    d_model, n_heads = full["d_model"], full["n_heads"]
    if full["d_head"] is None and d_model and n_heads:
        full["d_head"] = d_model // n_heads
    if full["d_mlp"] is None and d_model and guess:
        full["d_mlp"] = 4 * d_model
    return full


def _given(config: ModelConfig, name: str) -> int | None:
    value: int | None = getattr(config, name)
    if value is not None and value < 1:
        raise ConfigError(f"model.{name}={value} is not a size; it must be at least 1, or null to read config.json")
    return value


def _first_integer(entries: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for name in names:
        value = entries.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST:
            return value
    return None


def _check_folder(folder: Path, path: str | None) -> None:
    if not folder.is_dir():
        raise ConfigError(f"model.path={path}: no such folder; give a folder in Hugging Face layout or a hub id")
    if (folder / ADAPTER).is_file():
        raise ConfigError(
            f"model.path={path}: the folder has {ADAPTER}, and its adapter would be left out; give it as"
            f" model.adapter={path}, and its base model as model.path"
        )
    if quantised := [name for name in QUANTISED if (folder / name).is_file()]:
        raise ConfigError(
            f"model.path={path}: the folder has {quantised[0]}, so its weights are quantised, and activations of such"
            " are not supported; give the checkpoint it was made from, and model.quantize=8bit or 4bit"
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model.path={path}: the folder has no config.json, so it is not in Hugging Face layout")
    if not weight_paths(folder):
        raise ConfigError(
            f"model.path={path}: the folder has no weights (*.safetensors, or pytorch_model*.bin); give one that"
            " save_pretrained has written"
        )


def _read_json(file: Path, path: str | None) -> Mapping[str, Any]:
    try:
        return read_object(file, finite=False)
    except ValueError as error:
        raise ConfigError(f"model.path={path}: config.json is not valid JSON ({error})") from error
