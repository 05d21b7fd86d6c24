"""What is the same in most tests of a process, computed once: what Hydra does again in every command (it parses the
same files, composes the same choices of `configs/`, copies its store), and the medians that decoder biases begin as.

Nothing else is another's: what is kept is what the code itself has given for the same. A command in a process of its
own (tests/e2e) does all of it.
"""

import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import IO, Any

import omegaconf._utils
import pytest
import yaml  # type: ignore[import-untyped]
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.types import RunMode
from torch import Tensor

from sae_sweep.config.files import config_folder
from sae_sweep.saes.initial import Start


def compose_once(patch: pytest.MonkeyPatch) -> None:
    """As long as the patch lasts."""
    patch.setattr(ConfigStore, "__deepcopy__", lambda store, memo: store, raising=False)  # it gives out copies itself
    patch.setattr(Hydra, "get_mode", _mode(Hydra.get_mode))
    patch.setattr(ConfigLoaderImpl, "_load_configuration_impl", _composing(ConfigLoaderImpl._load_configuration_impl))
    loader = omegaconf._utils.get_yaml_loader()
    patch.setattr(omegaconf._utils, "get_yaml_loader", lambda: loader)
    patch.setattr(yaml, "load", _parsing(yaml.load, loader))


def find_medians_once(patch: pytest.MonkeyPatch) -> None:
    """As long as the patch lasts; of the same targets, to the bit."""
    real, found = Start.geometric_median_D.func, dict[tuple[Any, ...], Tensor]()

    def median(start: Start) -> Tensor:
        targets_ND = start.targets_ND
        if type(targets_ND) is not Tensor:  # without values, on a fake device
            return real(start)
        key = targets_ND.shape, hashlib.sha256(targets_ND.contiguous().numpy()).digest()
        if key not in found:
            found[key] = real(start)
        return found[key].clone()

    patch.setattr(Start, "geometric_median_D", property(median))


def _mode(real: Callable[..., Any]) -> Callable[..., Any]:
    """Hydra composes the whole config to see whether a `--multirun` that is given has to be."""

    def mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        return RunMode.MULTIRUN if "--multirun" in sys.argv else real(hydra, config_name, overrides)

    return mode


def _composing(real: Callable[..., Any]) -> Callable[..., Any]:
    """Of `configs/` alone, whose files stay as they are, and of what chooses among them: values come later."""
    composed: dict[tuple[Any, ...], bytes] = {}

    def compose(loader: ConfigLoaderImpl, config_name: str, overrides: Sequence[str], *how: Any, **named: Any) -> Any:
        folders = {source.path for source in loader.get_sources() if source.scheme() == "file"}
        if folders != {str(config_folder())} or any("." in text.partition("=")[0] for text in overrides):
            return real(loader, config_name, overrides, *how, **named)
        key = config_name, *overrides, how, *sorted(named.items())
        if key not in composed:
            composed[key] = pickle.dumps(real(loader, config_name, overrides, *how, **named))
        config = pickle.loads(composed[key])  # which no garbage collection looks at meanwhile
        config.hydra.runtime.cwd = os.getcwd()
        return config

    return compose


def _parsing(real: Callable[..., Any], loader: type) -> Callable[..., Any]:
    """Of OmegaConf's files; an error names the file, so it is parsed again."""
    parsed: dict[str, Any] = {}

    def load(stream: str | IO[str], Loader: type) -> Any:
        if Loader is not loader:
            return real(stream, Loader)
        text = stream if isinstance(stream, str) else stream.read()
        if text not in parsed:
            if not isinstance(stream, str):
                stream.seek(0)
            parsed[text] = real(stream, Loader)
        return deepcopy(parsed[text])

    return load
