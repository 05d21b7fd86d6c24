"""Changing activations at sites while the model runs, with either backend and in any kind of pass."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.places import place_of
from sae_sweep.model.sites import HOOK_OF_KIND, Site

Change = Callable[[Tensor], Tensor]
"""Gives an activation [R, T, d] back as it is to be; it may not change what it is given in place. Both are on the
model's device."""


@contextmanager
def changing(model: LanguageModel, site: Site, change: Change) -> Iterator[None]:
    """While this lasts, every forward pass goes on from a site with what `change` makes of its activation.

    Of several changes at one site the later ones are given what the earlier ones made. With a KV cache a pass has the
    new positions only.
    """

    def whole(activation: Tensor) -> Tensor:
        flat_RTd = activation.flatten(2) if activation.ndim > 3 else activation
        return change(flat_RTd.to(model.device)).to(activation).reshape(activation.shape)

    if model.block_map is None:
        with model.bridge.hooks(fwd_hooks=_bridge_hooks(site, whole)):
            yield
        return
    with ExitStack() as stack:
        assert site.kind is not None
        assert site.layer is not None
        for handle in place_of(model.block_map, site.layer, site.kind).hooked(whole):
            stack.callback(handle.remove)
        yield


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
