"""The model that ships on the fake device: its modules, with parameters that are shapes alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from sae_sweep.config.files import config_of
from sae_sweep.model.load import LanguageModel, load_model
from scripts.bench.fake.device import DEVICE


def real_model() -> LanguageModel:
    """On the CPU; what looks at numbers (checks of a site) is to be done there."""
    return load_model(config_of([]).model)


@contextmanager
def on_fake(model: LanguageModel) -> Iterator[LanguageModel]:
    """While this lasts, in fake mode, a model's parameters are on the fake device."""
    before = dict((*model.module.named_parameters(), *model.module.named_buffers()))
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.module._apply(_moved)
        yield replace(model, device=DEVICE)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
        for name, tensor in before.items():
            owner = model.module.get_submodule(name.rpartition(".")[0])
            of = owner._parameters if name.rpartition(".")[2] in owner._parameters else owner._buffers
            of[name.rpartition(".")[2]] = tensor


def _moved(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)
