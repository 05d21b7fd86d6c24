"""Sites: named places in the model, in TransformerLens's words. No torch."""

import re
from dataclasses import dataclass

from sae_sweep.config import SiteConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.facts import ModelFacts

# The end of each kind's hook name, after `blocks.L.`.
HOOK_OF_KIND = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "mlp_out": "hook_mlp_out",
    "mlp_post": "mlp.hook_post",
    "attn_z": "attn.hook_z",
    "attn_out": "hook_attn_out",
}
KIND_OF_HOOK = {hook: kind for kind, hook in HOOK_OF_KIND.items()}

_BLOCK_HOOK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Site:
    """A place in the model: a kind in a block, or a hook of another form (kind None; layer None outside the blocks)."""

    kind: str | None
    layer: int | None
    hook: str


TOY_SITE = Site(None, None, "toy")
"""Where activations are that come from no model."""


def resolve_site(config: SiteConfig, facts: ModelFacts) -> Site:
    """The site a config names. A null layer is the middle block; a hook wins over the kind, which has a default.

    Raises ConfigError when it names none, an unknown kind, or a layer beyond the model.
    """
    if config.hook is not None:
        return _site_of_hook(config.hook, config.layer, facts)
    if config.kind is None:
        raise ConfigError("site.kind and site.hook are both null; give one of them")
    if config.kind not in HOOK_OF_KIND:
        raise ConfigError(f"site.kind={config.kind} is unknown; known: {', '.join(HOOK_OF_KIND)}, or give site.hook")
    layer = facts.n_layers // 2 if config.layer is None else config.layer
    _check_layer(f"site.layer={layer}", layer, facts)
    return Site(config.kind, layer, f"blocks.{layer}.{HOOK_OF_KIND[config.kind]}")


def parse_hook(hook: str) -> Site:
    """The site of a hook name; kind None when it is none of the kinds."""
    match = _BLOCK_HOOK.fullmatch(hook)
    if match is None:
        return Site(None, None, hook)
    return Site(KIND_OF_HOOK.get(match[2]), int(match[1]), hook)


def later_sites(site: Site, n_layers: int, most: int | None) -> tuple[str, ...]:
    """Hooks of the residual stream in later blocks, at most so many: where Braun et al. 2024 (arXiv 2405.12241)
    compare a spliced model with the clean one. Of the site's own kind if it is resid_post, else resid_pre.

    Raises ConfigError where there is none.
    """
    kind = "resid_post" if site.kind == "resid_post" else "resid_pre"
    blocks = [] if site.layer is None else range(site.layer + 1, n_layers)[:most]
    if not blocks:
        raise ConfigError(
            f"training.objective=e2e_downstream: the residual stream has no site after {site.hook}; take e2e, or a"
            " site in an earlier block"
        )
    return tuple(f"blocks.{layer}.{HOOK_OF_KIND[kind]}" for layer in blocks)


def site_width(site: Site, facts: ModelFacts) -> int | None:
    """Numbers per position at the site; None where only the loaded model can tell."""
    if site.kind is None:
        return None
    return {"mlp_post": facts.d_mlp, "attn_z": facts.n_heads * facts.d_head}.get(site.kind, facts.d_model)


def _site_of_hook(hook: str, layer: int | None, facts: ModelFacts) -> Site:
    site = parse_hook(hook)
    if layer is not None and layer != site.layer:
        raise ConfigError(
            f"site.layer={layer} with site.hook={hook}: a hook names its own layer; leave site.layer null"
        )
    if site.layer is not None:
        _check_layer(f"site.hook={hook}", site.layer, facts)
    return site


def _check_layer(named: str, layer: int, facts: ModelFacts) -> None:
    if not 0 <= layer < facts.n_layers:
        raise ConfigError(f"{named} is beyond the model: 0 to {facts.n_layers - 1}")
