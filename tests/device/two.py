"""The model that ships over two fake GPUs, as `model.device_map` lays it: accelerate's own hooks, on shapes alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from accelerate import big_modeling, dispatch_model, hooks
from torch import nn

from sae_sweep.model.language_model import LanguageModel
from scripts.bench.fake.device import DEVICE
from tests.device.models import on_fake

SECOND = torch.device("cuda:1")


def halves(model: LanguageModel, *, first: bool) -> dict[str, int | str]:
    """A map of which the second GPU has the first half of the model, or the last; it leaves out what has no weights."""
    n = model.facts.n_layers
    order = ["model.embed_tokens", *(f"model.layers.{layer}" for layer in range(n))]
    places = [str(device) for device in ((SECOND, DEVICE) if first else (DEVICE, SECOND))]
    return {name: places[place > n // 2] for place, name in enumerate([*order, "model.norm", "lm_head"])}


@contextmanager
def on_two(model: LanguageModel, device_map: dict[str, int | str]) -> Iterator[LanguageModel]:
    """While this lasts, in fake mode, a model's modules are where the map says; the model's own device is the first."""
    with on_fake(model) as there:
        for name, device in device_map.items():
            if device == str(SECOND):
                _to_second(there.module.get_submodule(name))
        # They are in place, and no two are one: what accelerate looks for by addresses, which these have not.
        with (
            patch.object(hooks, "set_module_tensor_to_device", lambda *_, **__: None),
            patch.object(big_modeling, "find_tied_parameters", lambda _: []),
        ):
            dispatch_model(there.module, device_map)
        try:
            yield replace(there, config=replace(model.config, device_map=device_map))
        finally:
            hooks.remove_hook_from_submodules(there.module)


def _to_second(module: nn.Module) -> None:
    for part in module.modules():
        tensors: dict[str, Any]
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device=SECOND)
