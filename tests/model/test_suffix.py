from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BloomConfig, FalconConfig, GPTNeoXConfig, GraniteConfig, MixtralConfig, Olmo2Config

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.load import load_model
from sae_sweep.model.sites import HOOK_OF_KIND
from sae_sweep.model.suffix import Suffix
from tests.model.conftest import Case

Config = Callable[..., ModelConfig]


def _hooks(kinds: tuple[str, ...]) -> list[str]:
    return [f"blocks.{layer}.{HOOK_OF_KIND[kind]}" for layer in (0, 2, 3) for kind in kinds]


def _noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(2), dtype=like.dtype)


def test_every_kind_against_a_whole_spliced_forward(case: Case, tokens_RT: Tensor) -> None:
    suffix = Suffix(case.model, _hooks(case.kinds))
    clean = suffix.clean(tokens_RT)
    torch.testing.assert_close(clean.final_RTD, case.reference.final_hidden(tokens_RT), rtol=0, atol=1e-10)
    for hook, site in suffix.sites.items():
        assert site.kind is not None
        assert site.layer is not None
        noise = _noise(clean.activations[hook])
        kept = noise.clone()
        expected = case.reference.final_hidden(tokens_RT, (site.kind, site.layer, noise))
        actual = suffix.run(hook, clean, noise)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-9, msg=lambda m, h=hook: f"{h}: {m}")
        assert (actual - clean.final_RTD).abs().max() > 0.01
        assert torch.equal(noise, kept)


def test_the_clean_activation_gives_the_clean_result(case: Case, tokens_RT: Tensor, model_config: Config) -> None:
    model = load_model(model_config(case.folder))
    suffix = Suffix(model, _hooks(case.kinds))
    clean = suffix.clean(tokens_RT)
    for hook in suffix.sites:
        again = suffix.run(hook, clean, clean.activations[hook])
        torch.testing.assert_close(again, clean.final_RTD, rtol=0, atol=1e-5, msg=lambda m, h=hook: f"{h}: {m}")


def test_the_blocks_before_the_site_do_not_run(case: Case, tokens_RT: Tensor) -> None:
    assert case.model.block_map is not None
    suffix = Suffix(case.model, _hooks(case.kinds))
    clean = suffix.clean(tokens_RT)
    ran: set[int] = set()
    with ExitStack() as stack:
        for layer in range(4):
            # A projection in the MLP runs exactly when its block does, unless the MLP is what is replaced.
            down = case.model.block_map.blocks[layer].mlp_projection
            assert down is not None
            note = down.register_forward_pre_hook(lambda _, __, layer=layer: ran.add(layer))
            stack.callback(note.remove)
        for hook, site in suffix.sites.items():
            ran.clear()
            suffix.run(hook, clean, clean.activations[hook])
            assert site.layer is not None
            live = site.layer + (site.kind in ("resid_post", "mlp_out"))
            assert ran == set(range(live, 4)), hook


def test_the_replaced_part_does_not_run(case: Case, tokens_RT: Tensor) -> None:
    assert case.model.block_map is not None
    block = case.model.block_map.blocks[2]
    assert block.attention is not None
    suffix = Suffix(case.model, _hooks(case.kinds))
    clean = suffix.clean(tokens_RT)
    # Modules inside attention, which its replacement by a constant leaves out.
    inside = [module for module in block.attention.children() if module is not block.attention_projection]
    ran: list[str] = []
    with ExitStack() as stack:
        for module in inside:
            note = module.register_forward_pre_hook(lambda m, _: ran.append(type(m).__name__))
            stack.callback(note.remove)
        for kind in set(case.kinds) - {"resid_pre"}:
            suffix.run(f"blocks.2.{HOOK_OF_KIND[kind]}", clean, clean.activations[f"blocks.2.{HOOK_OF_KIND[kind]}"])
            assert not ran, kind
        suffix.run("blocks.2.hook_resid_pre", clean, clean.activations["blocks.2.hook_resid_pre"])
        assert ran


def test_everything_is_restored_after_an_error(case: Case, tokens_RT: Tensor) -> None:
    assert case.model.block_map is not None
    suffix = Suffix(case.model, _hooks(case.kinds))
    clean = suffix.clean(tokens_RT)
    last = case.model.block_map.blocks[3].module

    def fail(*_: object) -> None:
        raise ArithmeticError

    for hook in suffix.sites:
        with last.register_forward_pre_hook(fail) if "3" not in hook else ExitStack():
            if "3" not in hook:
                with pytest.raises(ArithmeticError):
                    suffix.run(hook, clean, clean.activations[hook])
    for module in case.model.module.modules():
        assert "forward" not in module.__dict__
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert torch.equal(case.model.final_hidden(tokens_RT), clean.final_RTD)


def test_passes_are_counted(case: Case, tokens_RT: Tensor) -> None:
    suffix = Suffix(case.model, ["blocks.1.hook_mlp_out", "blocks.2.hook_resid_post"])
    clean_before, suffix_before = case.model.passes.clean, case.model.passes.suffix
    clean = suffix.clean(tokens_RT)
    for _ in range(3):
        suffix.run("blocks.1.hook_mlp_out", clean, clean.activations["blocks.1.hook_mlp_out"])
    assert (case.model.passes.clean, case.model.passes.suffix) == (clean_before + 1, suffix_before + 3)


def test_the_replacement_may_be_trained_through(case: Case, tokens_RT: Tensor) -> None:
    suffix = Suffix(case.model, ["blocks.1.hook_mlp_out"])
    clean = suffix.clean(tokens_RT)
    value = clean.activations["blocks.1.hook_mlp_out"].clone().requires_grad_()
    suffix.run("blocks.1.hook_mlp_out", clean, value).sum().backward()
    assert value.grad is not None
    assert value.grad.abs().sum() > 0
    assert not suffix.run("blocks.1.hook_mlp_out", clean, value.detach()).requires_grad


def test_a_replacement_of_another_shape_is_refused(case: Case, tokens_RT: Tensor) -> None:
    suffix = Suffix(case.model, ["blocks.1.hook_mlp_out"])
    with pytest.raises(ValueError, match="replacement of shape"):
        suffix.run("blocks.1.hook_mlp_out", suffix.clean(tokens_RT), torch.zeros(3, 11, 32))


def test_the_bridge_gives_the_same(case: Case, tokens_RT: Tensor, model_config: Config) -> None:
    bridged = load_model(model_config(case.folder, dtype="float64", backend="transformer_lens"))
    theirs, ours = Suffix(bridged, _hooks(case.kinds)), Suffix(case.model, _hooks(case.kinds))
    their_clean, our_clean = theirs.clean(tokens_RT), ours.clean(tokens_RT)
    for hook in ours.sites:
        noise = _noise(our_clean.activations[hook])
        actual, expected = theirs.run(hook, their_clean, noise), ours.run(hook, our_clean, noise)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5, msg=lambda m, h=hook: f"{h}: {m}")


OTHERS = {
    # (config class, own settings, the kinds it must refuse)
    "sequential neox": (GPTNeoXConfig, {"use_parallel_residual": False}, set()),
    "norms after, none before": (Olmo2Config, {"num_key_value_heads": 2}, set()),
    "adds in place": (FalconConfig, {"parallel_attn": True, "ffn_hidden_size": 80}, {"resid_mid"}),
    "scaled residual and logits": (
        GraniteConfig,
        {"residual_multiplier": 0.3, "logits_scaling": 3.0},
        {"resid_mid", "attn_out", "mlp_out"},
    ),
    "experts": (MixtralConfig, {"num_key_value_heads": 2, "num_local_experts": 4}, {"mlp_post"}),
    "residual inside its parts": (BloomConfig, {"n_layer": 4, "n_head": 4}, set()),
}
EXPERTS = {"router", "experts_out"}


@pytest.mark.parametrize("name", OTHERS)
def test_an_unusual_architecture_is_served_or_refused_never_misread(
    name: str, build_model: Callable[..., Path], model_config: Config, tokens_RT: Tensor
) -> None:
    config_class, own, refused = OTHERS[name]
    model = load_model(model_config(build_model(name.replace(" ", "_"), config_class, **own)))
    served = set()
    for kind, end in HOOK_OF_KIND.items():
        try:
            suffix = Suffix(model, [f"blocks.1.{end}"])
        except ConfigError:
            continue
        served.add(kind)
        clean = suffix.clean(tokens_RT)
        again = suffix.run(f"blocks.1.{end}", clean, clean.activations[f"blocks.1.{end}"])
        torch.testing.assert_close(again, clean.final_RTD, rtol=0, atol=1e-5)
        kept = {hook: value.clone() for hook, value in clean.activations.items()}
        noise = _noise(clean.activations[f"blocks.1.{end}"])
        first = suffix.run(f"blocks.1.{end}", clean, noise)
        assert torch.equal(suffix.run(f"blocks.1.{end}", clean, noise), first)
        assert torch.equal(noise, _noise(noise))
        assert all(torch.equal(clean.activations[hook], kept[hook]) for hook in kept)
    assert served == set(HOOK_OF_KIND) - refused - (set() if name == "experts" else EXPERTS)
