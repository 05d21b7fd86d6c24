"""Where the modules of a model are that one device has no room for: `model.device_map`.

accelerate moves what a module is given to where that is. Members, and whatever is taken out of the model or put into
it, are on `model.device`. No torch above `placing`.
"""

import atexit
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from difflib import get_close_matches
from math import ceil
from typing import TYPE_CHECKING, Any

from sae_sweep.config.schema import ModelConfig
from sae_sweep.config.values import counted
from sae_sweep.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

LOW = "balanced_low_0"
WORDS = ("auto", "balanced", LOW)
"""accelerate's: blocks are spread evenly over the GPUs that there are, but for the first, where members are, with the
last word; what no GPU has room for is in the host's memory, then on its disk."""
OFFLOADED = ("cpu", "disk")
_DEVICE = re.compile(r"cpu|disk|cuda:\d+")
_BLOCK = re.compile(r".*\.\d+")


def check_device_map(config: ModelConfig) -> None:
    """Raises ConfigError for what is neither one of WORDS nor gives devices."""
    asked = config.device_map
    if isinstance(asked, str) and asked not in WORDS:
        raise ConfigError(
            f"model.device_map={asked} is not one of {', '.join(WORDS)}, and no mapping like"
            " {model.layers.0: 0, model.layers.1: 1}"
        )
    for name, device in _places(config).items():
        if not _DEVICE.fullmatch(device):
            raise ConfigError(f"model.device_map: {device}, for {name}, is not cpu, disk or the number of a GPU")


def blocks_here(config: ModelConfig, n_layers: int, gpus: int) -> int:
    """How many blocks of the model `model.device` has to hold at a time, of as many GPUs. Where it cannot be told
    before the model is loaded, all."""
    if config.device_map is None:
        return n_layers
    if isinstance(config.device_map, str):
        return 0 if config.device_map == LOW and gpus > 1 else ceil(n_layers / gpus)
    own = "cpu" if config.device == "cpu" else config.device if ":" in config.device else "cuda:0"
    away = [place for name, place in _places(config).items() if _BLOCK.fullmatch(name) and place != own]
    return n_layers - len(away) + any(place in OFFLOADED for place in away)  # which come in one by one


def placing(config: ModelConfig) -> dict[str, Any]:
    """What transformers is told as it loads the model; nothing where it is on one device. Raises ConfigError for a GPU
    that is not here."""
    if config.device_map is None:
        return {}
    import torch

    here = torch.cuda.device_count()
    for name, place in _places(config).items():
        number = place.removeprefix("cuda:")
        if number.isdecimal() and int(number) >= here:
            raise ConfigError(f"model.device_map: {name} is to be on GPU {number}, and torch sees {here} here")
    if "disk" not in _places(config).values() and not isinstance(config.device_map, str):
        return {"device_map": config.device_map}
    logging.getLogger("accelerate").setLevel(logging.ERROR)  # it tells what was asked for
    folder = tempfile.mkdtemp(prefix="sae-sweep-offload-")  # for weights that are not on the disk as they are used
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {"device_map": config.device_map, "offload_folder": folder}


def check_placed(module: "nn.Module", config: ModelConfig) -> None:
    """Raises ConfigError for names of a mapping that the model has not, which would change nothing."""
    names = [name for name, _ in (*module.named_modules(), *module.named_parameters())]
    for name in _places(config):
        if name not in names:
            near = get_close_matches(name, names, n=1)
            raise ConfigError(
                f"model.device_map: {type(module).__name__} has no {name}" + (f"; near it: {near[0]}" if near else "")
            )


def in_words(config: ModelConfig) -> str:
    """Where the model is, in a word or two, for plans."""
    if config.device_map is None:
        return config.device
    if isinstance(config.device_map, str):
        return f"{config.device}, {config.device_map}"
    return f"{config.device}, {counted(len(set(_places(config).values())), 'place')}"


def _places(config: ModelConfig) -> Mapping[str, str]:
    """Of a mapping: each module's place, GPUs as `cuda:N`."""
    if not isinstance(config.device_map, dict):
        return {}
    return {name: f"cuda:{place}" if isinstance(place, int) else place for name, place in config.device_map.items()}
