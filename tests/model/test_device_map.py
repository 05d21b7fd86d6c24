"""A model whose blocks are not all on one device: here some are on the disk; tests/device/test_two.py has two GPUs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.harvest import harvest
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import load_model
from sae_sweep.model.sites import HOOK_OF_KIND
from sae_sweep.model.suffix import Suffix
from tests.model.conftest import Case

Config = Callable[..., ModelConfig]


def spread(model: LanguageModel, away: str, place: str = "disk") -> dict[str, int | str]:
    """A map of every module that has parameters of its own: those whose names begin so are away, others on the CPU."""
    names = {name.rpartition(".")[0] for name, _ in model.module.named_parameters(remove_duplicate=False)}
    return {name: place if name.startswith(away) else "cpu" for name in names}


def test_a_model_that_is_partly_on_the_disk(case: Case, tokens_RT: Tensor) -> None:
    """Each architecture, from its third block on: the same bits at every site, from it on, and back."""
    away = f"{case.reference.paths.blocks}.2"
    there = load_model(replace(case.model.config, device_map=spread(case.model, away)))
    offloaded = {name for name, parameter in there.module.named_parameters() if parameter.is_meta}
    assert offloaded == {name for name, _ in case.model.module.named_parameters() if name.startswith(away)}
    assert offloaded
    assert there.config in {there.config}, "models are kept by their configs"
    hooks = [f"blocks.{layer}.{HOOK_OF_KIND[kind]}" for kind in case.kinds for layer in (1, 2)]
    plain, moved = (harvest(model, tokens_RT, hooks) for model in (case.model, there))
    assert all(torch.equal(plain[hook], moved[hook]) for hook in hooks)
    passes = [Suffix(model, hooks) for model in (case.model, there)]
    cleans = [suffix.clean(tokens_RT) for suffix in passes]
    for hook in hooks:
        value_RTd = (cleans[0].activations[hook] / 2).requires_grad_()
        ends = [suffix.run(hook, clean, value_RTd) for suffix, clean in zip(passes, cleans, strict=True)]
        assert torch.equal(*ends)
        assert torch.equal(*(torch.autograd.grad(end_RTD.square().sum(), value_RTd)[0] for end_RTD in ends))


def test_a_word_for_what_there_is(llama_folder: Path, model_config: Config, tokens_RT: Tensor) -> None:
    """Without a GPU all of it is in the host's memory."""
    plain, there = (load_model(model_config(llama_folder, device_map=word)) for word in (None, "auto"))
    assert torch.equal(plain.final_hidden(tokens_RT), there.final_hidden(tokens_RT))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lm_head": "disk", "model.embed_tokens": "disk"}, r"model\.device_map: the lm head is offloaded"),
        ({"model.layer.1": "disk"}, r"LlamaForCausalLM has no model\.layer\.1; near it: model\.layers\.1"),
        ({"model.layers.1": 3}, r"model\.layers\.1 is to be on GPU 3, and torch sees 0 here"),
        ({"model.layers.1": "cuda:3"}, r"GPU 3, and torch sees 0 here"),
    ],
)
def test_what_cannot_be_loaded_so(
    change: dict[str, int | str], message: str, llama_folder: Path, model_config: Config
) -> None:
    plain = load_model(model_config(llama_folder))
    device_map = spread(plain, "model.layers.0") | change
    with pytest.raises(ConfigError, match=message):
        load_model(model_config(llama_folder, device_map=device_map))
