"""Reading activations at sites while the model runs, with either backend."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from sae_sweep.errors import ConfigError
from sae_sweep.model.blocks import BlockMap
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.places import missing, place_of
from sae_sweep.model.sites import HOOK_OF_KIND, INNER, Site, own_hook, parse_hook, site_width

Sink = Callable[[str, Tensor], None]
"""Takes a hook's name and its activation [R, T, d], which the model may go on to change in place."""


def check_hook(model: LanguageModel, hook: str) -> Site:
    """The site of a hook that this model serves. ConfigError, saying what would be right, for any other."""
    if own_hook(hook) != hook:
        raise ConfigError(f"site.hook={hook} is of another model than {model.config.name}, which is read with this one")
    site = parse_hook(hook)
    if site.layer is not None and site.layer >= model.facts.n_layers:
        raise ConfigError(f"site.hook={hook} is beyond the model: blocks 0 to {model.facts.n_layers - 1}")
    if model.block_map is None:
        _check_bridge_hook(model, hook)
        return site
    if site.kind is None or site.layer is None:
        raise ConfigError(
            f"site.hook={hook}: model.backend=hf serves only the kinds {', '.join(HOOK_OF_KIND)}"
            f" (blocks.L.{HOOK_OF_KIND['resid_post']}, ...); use model.backend=transformer_lens for any other hook"
        )
    problem = missing(model.block_map, site.layer, site.kind)
    if problem:
        raise ConfigError(f"site.kind={site.kind}: {type(model.module).__name__} {problem}")
    return site


@contextmanager
def observing(model: LanguageModel, sites: Sequence[Site], sink: Sink) -> Iterator[None]:
    """While this lasts, every forward pass hands each site's activation to `sink`, as the model computes it, on the
    model's device."""

    def flat(hook: str, activation: Tensor) -> None:
        sink(hook, (activation.flatten(2) if activation.ndim > 3 else activation).to(model.device))

    if model.block_map is None:
        with model.bridge.hooks(fwd_hooks=[(site.hook, _bridge_hook(site.hook, flat)) for site in sites]):
            yield
        return
    with ExitStack() as stack:
        for site in sites:
            for handle in _observe(model.block_map, site, flat):
                stack.callback(handle.remove)
        yield


def check_shape(model: LanguageModel, site: Site, activation: Tensor, tokens_RT: Tensor) -> None:
    """Raise ConfigError unless the activation is one vector per token, as wide as its kind is in all blocks."""
    width = site_width(site, model.facts)
    shape = tuple(activation.shape)
    if activation.ndim != 3 or shape[:2] != tuple(tokens_RT.shape):
        raise ConfigError(
            f"site.hook={site.hook} has shape {list(shape)} for {list(tokens_RT.shape)} tokens; a site needs one vector"
            " per token"
        )
    if width is not None and shape[2] != width and site.kind not in INNER:
        raise ConfigError(f"site.hook={site.hook} is {shape[2]} wide in the loaded model, but {width} were planned")


def _check_bridge_hook(model: LanguageModel, hook: str) -> None:
    names = list(model.bridge.hook_dict)
    if hook not in names:
        near = get_close_matches(hook, names, n=4, cutoff=0.5)
        raise ConfigError(f"site.hook={hook} is no hook of this model; near it: {', '.join(near) or 'nothing'}")
    try:
        with model.bridge.hooks(fwd_hooks=[(hook, lambda *_, **__: None)]):
            pass
    except (ValueError, NotImplementedError) as error:  # a hook that TransformerLens has switched off
        raise ConfigError(f"site.hook={hook} never fires: {error}") from error


def _observe(block_map: BlockMap, site: Site, sink: Sink) -> list[Any]:
    """Register the module hooks of a site that its block has."""
    assert site.kind is not None
    assert site.layer is not None

    def take(activation: Tensor) -> None:
        sink(site.hook, activation)

    return place_of(block_map, site.layer, site.kind).hooked(take)


def _bridge_hook(name: str, sink: Sink) -> Callable[..., None]:
    def take(activation: Tensor, hook: object) -> None:
        sink(name, activation)

    return take
