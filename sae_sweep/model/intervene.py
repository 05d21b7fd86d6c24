"""Changing activations at sites while the model runs, with either backend and in any kind of pass."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from sae_sweep.model.blocks import Block, BlockMap, first, input_of
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.observe import placed
from sae_sweep.model.sites import HOOK_OF_KIND, Site

Change = Callable[[Tensor], Tensor]
"""Gives an activation [R, T, d] back as it is to be; it may not change what it is given in place."""


@contextmanager
def changing(model: LanguageModel, site: Site, change: Change) -> Iterator[None]:
    """While this lasts, every forward pass goes on from a site with what `change` makes of its activation.

    Of several changes at one site the later ones are given what the earlier ones made. With a KV cache a pass has the
    new positions only.
    """

    def whole(activation: Tensor) -> Tensor:
        flat_RTd = activation.flatten(2) if activation.ndim > 3 else activation
        return change(flat_RTd).to(activation.dtype).reshape(activation.shape)

    if model.block_map is None:
        with model.bridge.hooks(fwd_hooks=_bridge_hooks(site, whole)):
            yield
        return
    with ExitStack() as stack:
        for handle in _hooks(model.block_map, site, whole):
            stack.callback(handle.remove)
        yield


def _hooks(block_map: BlockMap, site: Site, change: Change) -> list[Any]:
    """Register the module hooks that change a site which its block has."""
    assert site.kind is not None
    assert site.layer is not None
    block = block_map.blocks[site.layer]
    if site.kind == "resid_mid":
        return _resid_mid(block, change)
    module, is_input = placed(block, site.kind)
    return [_change_input(module, change) if is_input else _change_output(module, change)]


def _resid_mid(block: Block, change: Change) -> list[Any]:
    """Attention is made to add what leads to the changed residual stream."""
    before: list[Tensor] = []
    assert block.attention_added is not None

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        before.append(input_of(args, kwargs))

    def added(value: Tensor) -> Tensor:
        middle = before.pop() + value
        return value + (change(middle) - middle)

    return [
        block.module.register_forward_pre_hook(note, with_kwargs=True),
        _change_output(block.attention_added, added),
    ]


def _change_input(module: nn.Module, change: Change) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        value = change(input_of(args, kwargs))
        return ((value, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": value})

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _change_output(module: nn.Module, change: Change) -> Any:
    def hook(_: nn.Module, __: object, output: Any) -> Any:
        value = change(first(output))
        return (value, *output[1:]) if isinstance(output, tuple) else value

    return module.register_forward_hook(hook)


def _bridge_hooks(site: Site, change: Change) -> list[Any]:
    """TransformerBridge's hooks that change a site."""
    made: list[Tensor] = []

    def replace(activation: Tensor, hook: object) -> Tensor:
        replaced = change(activation)
        made.append(replaced - activation)
        return replaced

    if site.kind != "resid_mid":
        return [(site.hook, lambda activation, hook: change(activation))]
    # The bridge's hook is on the MLP's own input, so the residual stream around the MLP has to be changed too.
    around = f"blocks.{site.layer}.{HOOK_OF_KIND['resid_post']}"
    return [(site.hook, replace), (around, lambda activation, hook: activation + made.pop())]
