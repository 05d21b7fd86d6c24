from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.harvest import harvest
from sae_sweep.model.load import LanguageModel, load_model
from sae_sweep.model.sites import HOOK_OF_KIND
from tests.model.conftest import Case

Config = Callable[..., ModelConfig]


def _hook(kind: str, layer: int) -> str:
    return f"blocks.{layer}.{HOOK_OF_KIND[kind]}"


@pytest.fixture(scope="module")
def bridged(case: Case, model_config: Config) -> LanguageModel:
    return load_model(model_config(case.folder, dtype="float64", backend="transformer_lens"))


def test_every_kind_against_plain_module_hooks(case: Case, tokens_RT: Tensor) -> None:
    layers = (0, 2, 3)
    found = harvest(case.model, tokens_RT, [_hook(kind, layer) for kind in case.kinds for layer in layers])
    assert len(found) == len(case.kinds) * len(layers)
    for kind in case.kinds:
        for layer in layers:
            value = found[_hook(kind, layer)]
            expected = case.reference.activation(kind, layer, tokens_RT)
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-10, msg=lambda m, k=kind: f"{k}: {m}")
            assert value.is_contiguous()
            assert not value.requires_grad


def test_every_kind_against_transformer_lens(case: Case, bridged: LanguageModel, tokens_RT: Tensor) -> None:
    hooks = [_hook(kind, layer) for kind in case.kinds for layer in (0, 3)]
    ours, theirs = harvest(case.model, tokens_RT, hooks), harvest(bridged, tokens_RT, hooks)
    for hook in hooks:
        # TransformerLens attends with eager kernels, whose softmax is float32 whatever the model's dtype.
        atol = 1e-5 * float(ours[hook].abs().max())
        torch.testing.assert_close(ours[hook], theirs[hook], rtol=0, atol=atol, msg=lambda m, h=hook: f"{h}: {m}")


def test_activations_may_be_used_by_autograd_and_changed(case: Case, tokens_RT: Tensor) -> None:
    hooks = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_pre"]
    first, second = harvest(case.model, tokens_RT, hooks).values()
    weight = torch.ones(32, dtype=first.dtype, requires_grad=True)
    (first @ weight).sum().backward()
    first.zero_()
    assert second.abs().sum() > 0


def test_it_stops_after_the_last_site(case: Case, tokens_RT: Tensor) -> None:
    assert case.model.block_map is not None
    ran: list[int] = []
    with ExitStack() as stack:
        for layer, block in enumerate(case.model.block_map.blocks):
            note = block.module.register_forward_pre_hook(lambda _, __, layer=layer: ran.append(layer))
            stack.callback(note.remove)
        before = case.model.passes.harvest
        harvest(case.model, tokens_RT, ["blocks.1.hook_mlp_out", "blocks.0.hook_resid_post"])
        assert ran == [0, 1]
        assert case.model.passes.harvest == before + 1
        harvest(case.model, tokens_RT, ["blocks.2.hook_resid_pre"])
        assert ran == [0, 1, 0, 1, 2]


def test_nothing_is_left_behind(case: Case, tokens_RT: Tensor) -> None:
    harvest(case.model, tokens_RT, [_hook(kind, 1) for kind in case.kinds])
    for module in case.model.module.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_errors_of_the_hf_backend(case: Case, tokens_RT: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"hf serves only the kinds resid_pre.*use model\.backend=transformer_lens"):
        harvest(case.model, tokens_RT, ["blocks.1.ln1.hook_normalized"])
    with pytest.raises(ConfigError, match="beyond the model: blocks 0 to 3"):
        harvest(case.model, tokens_RT, ["blocks.4.hook_resid_pre"])
    if "resid_mid" not in case.kinds:
        with pytest.raises(ConfigError, match="in parallel, so there is no residual between them"):
            harvest(case.model, tokens_RT, ["blocks.1.hook_resid_mid"])


def test_the_bridge_serves_any_hook(bridged: LanguageModel, tokens_RT: Tensor) -> None:
    hooks = ["hook_embed", "blocks.1.ln1.hook_normalized", "ln_final.hook_normalized"]
    assert {tuple(value.shape) for value in harvest(bridged, tokens_RT, hooks).values()} == {(3, 12, 32)}


def test_errors_of_the_bridge(gpt2_folder: Path, llama_folder: Path, model_config: Config, tokens_RT: Tensor) -> None:
    model = load_model(model_config(gpt2_folder, backend="transformer_lens"))
    with pytest.raises(ConfigError, match=r"is no hook of this model; near it: blocks\.1\.hook_resid_post"):
        harvest(model, tokens_RT, ["blocks.1.hook_resid_pst"])
    with pytest.raises(ConfigError, match="one vector per token"):
        harvest(model, tokens_RT, ["blocks.1.attn.hook_pattern"])
    with pytest.raises(ConfigError, match="never fires"):
        harvest(model, tokens_RT, ["blocks.1.hook_attn_in"])
    rotary = load_model(model_config(llama_folder, backend="transformer_lens"))
    with pytest.raises(ConfigError, match=r"hook_pos_embed never fired"):
        harvest(rotary, tokens_RT, ["hook_pos_embed"])


def test_a_site_that_fires_twice_is_refused(llama_folder: Path, model_config: Config, tokens_RT: Tensor) -> None:
    model = load_model(model_config(llama_folder))
    assert isinstance(model.module, torch.nn.Module)
    layers = model.module.get_submodule("model.layers")
    layers[2] = layers[1]  # a model that shares a block between layers
    with pytest.raises(ConfigError, match="fires more than once"):
        harvest(model, tokens_RT, ["blocks.1.hook_mlp_out", "blocks.3.hook_mlp_out"])
