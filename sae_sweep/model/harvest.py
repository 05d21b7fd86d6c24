"""Activations of several sites from one forward pass."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from sae_sweep.errors import ConfigError
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.observe import check_hook, check_shape, observing
from sae_sweep.model.sites import Site


def harvest(model: LanguageModel, tokens_RT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
    """The activation [R, T, d] of each hook, from one forward pass that stops at the last of them.

    Tensors are on the model's device in its dtype, contiguous and the caller's own. Attention heads are flattened.
    Raises ConfigError for a hook that this model does not serve, that never fires, or that fires twice.
    """
    sites = {hook: check_hook(model, hook) for hook in hooks}
    model.passes.harvest += 1
    with torch.no_grad():
        return collect(model, tokens_RT, sites, stop=True)[0]


def collect(
    model: LanguageModel, tokens_RT: Tensor, sites: Mapping[str, Site], *, stop: bool
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The activations of sites by hook, and with `stop` False the final hidden states. One uncounted forward pass."""
    found: dict[str, Tensor] = {}

    def take(hook: str, activation: Tensor) -> None:
        if hook in found:
            raise ConfigError(f"site.hook={hook} fires more than once in a forward pass; choose another site")
        check_shape(model, sites[hook], activation, tokens_RT)
        found[hook] = activation.detach().clone(memory_format=torch.contiguous_format)
        if stop and len(found) == len(sites):
            raise _AllFound

    final_RTD = None
    with suppress(_AllFound), observing(model, list(sites.values()), take):
        final_RTD = model.final_hidden(tokens_RT)
    silent = [hook for hook in sites if hook not in found]
    if silent:
        raise ConfigError(f"site.hook={silent[0]} never fired in a forward pass of this model; choose another site")
    return found, final_RTD


class _AllFound(Exception):  # noqa: N818 - it reports no error
    pass
