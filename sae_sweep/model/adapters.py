"""Adapters in peft's layout, which are merged into the weights of the model that is loaded: `model.adapter`.

peft makes them what they are, whichever of its kinds they are of. No torch above `merged`.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError, one_line
from sae_sweep.host.network import look_at_hub
from sae_sweep.model.facts import ADAPTER, HUB_ID

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
FILES = (ADAPTER, *WEIGHTS)
"""What makes a local folder the adapter it is."""


def adapter_folder(config: ModelConfig) -> Path | None:
    """The local folder of `model.adapter`, or None where it is a hub id, or there is none.

    Raises ConfigError for a folder that has none, and where peft is not installed.
    """
    if config.adapter is None:
        return None
    key, folder = f"model.adapter={config.adapter}", Path(config.adapter).expanduser()
    if find_spec("peft") is None:
        raise ConfigError(f"{key} needs the package peft, which merges it: pip install 'sae-sweep[peft]'")
    if not folder.exists() and HUB_ID.fullmatch(config.adapter):
        return None
    if not folder.is_dir():
        raise ConfigError(f"{key}: no such folder; give one that peft's save_pretrained has written, or a hub id")
    if not (folder / ADAPTER).is_file() or not any((folder / name).is_file() for name in WEIGHTS):
        raise ConfigError(f"{key}: the folder lacks {ADAPTER} or {WEIGHTS[0]}, so it is not what peft saves")
    return folder


def merged(module: "nn.Module", config: ModelConfig) -> "nn.Module":
    """The model with its adapter in its weights; as it is where it has none.

    Raises ConfigError for an adapter that cannot be merged, and for one that has more or fewer tensors than the model
    has places for.
    """
    if config.adapter is None:
        return module
    folder = adapter_folder(config)
    if folder is None:
        look_at_hub()
    from peft import PeftModel, get_peft_model_state_dict, load_peft_weights

    source: str = config.adapter if folder is None else str(folder)
    try:
        adapted: Any = PeftModel.from_pretrained(module, source, torch_device="cpu")
        there = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
        given = set(load_peft_weights(source, device="cpu"))
        made: nn.Module = adapted.merge_and_unload(safe_merge=True)
    except Exception as error:  # peft, safetensors and the hub raise types of their own
        why = one_line(error)
        raise ConfigError(f"model.adapter={config.adapter} cannot be merged into {config.path}: {why}") from error
    if unlike := sorted(there ^ given):
        raise ConfigError(
            f"model.adapter={config.adapter} is of another model: {len(given - there)} of its tensors have no place in"
            f" {config.path}, and {len(there - given)} places none ({unlike[0]}, ...)"
        )
    return made
