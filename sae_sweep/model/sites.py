"""Sites: named places in the model, in TransformerLens's words. No torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sae_sweep.config.schema import SiteConfig
from sae_sweep.errors import ConfigError
from sae_sweep.model.facts import ModelFacts

# The end of each kind's hook name, after `blocks.L.`; in the order in which a block computes them.
HOOK_OF_KIND = {
    "resid_pre": "hook_resid_pre",
    "attn_z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp_in": "mlp.hook_in",
    "router": "mlp.hook_router_logits",
    "experts_out": "mlp.hook_experts_out",
    "mlp_post": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}
INNER = ("attn_z", "mlp_post", "router")
"""Kinds inside a part, which some blocks have wider or narrower than config.json says: `site.width` then does."""
ALL = "all"
"""As `site.across`: every layer of the model."""
KIND_OF_HOOK = {hook: kind for kind, hook in HOOK_OF_KIND.items()}

_BLOCK_HOOK = re.compile(r"blocks\.(\d+)\.(.+)")
_OF_ANOTHER = re.compile(r"models\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Site:
    """A place in the model: a kind in a block, or a hook of another form (kind None; layer None outside the blocks)."""

    kind: str | None
    layer: int | None
    hook: str
    output: "Site | None" = None
    """Where what is reconstructed is, if not here (a transcoder's)."""
    beside: "tuple[Site, ...]" = ()
    """The other places of a crosscoder, which reads and reconstructs all of them; those of a cross-layer transcoder
    have outputs of their own."""

    @property
    def written(self) -> "Site":
        """The place whose activations are reconstructed."""
        return self.output or self

    @property
    def places(self) -> "tuple[Site, ...]":
        """It, and those beside it."""
        return (self, *self.beside)

    @property
    def reads(self) -> tuple[str, ...]:
        """The hooks that are read."""
        return tuple(place.hook for place in self.places)

    @property
    def writes(self) -> tuple[str, ...]:
        """The hooks whose activations are reconstructed."""
        return tuple(place.written.hook for place in self.places)

    @property
    def spliced(self) -> "tuple[Site, ...]":
        """The places that a pass each begins at, when it is judged: a cross-layer transcoder's layers are spliced
        together, from the first one on."""
        return self.places[:1] if self.output else self.places

    @property
    def layers(self) -> int:
        """Of a cross-layer transcoder, how many it reads and writes; 1 of all else."""
        return len(self.places) if self.output else 1

    @property
    def hooks(self) -> tuple[str, ...]:
        """Where activations are taken, each hook once."""
        return tuple(dict.fromkeys(hook for place in self.places for hook in (place.hook, place.written.hook)))

    @property
    def name(self) -> str:
        """What plans call it; of several layers, which they are, and where in a block."""
        if self.layers > 1:
            blocks = ", ".join(str(place.layer) for place in self.places)
            ends = (hooks[0].split(".", 2)[-1] for hooks in (self.reads, self.writes))
            return f"blocks {blocks}: {' -> '.join(ends)}"
        return " -> ".join(self.hooks) if self.output else " + ".join(self.hooks)


def modelless_site(kind: str) -> Site:
    """Where activations are that come from no model: they have the name of their kind of data."""
    return Site(None, None, kind)


def resolve_site(config: SiteConfig, facts: ModelFacts) -> Site:
    """The site a config names. A null layer is the middle block; a hook wins over the kind, which has a default.

    Raises ConfigError when it names none, an unknown kind, a layer beyond the model, or an output that cannot be.
    """
    if config.across is not None:
        return _across(config, config.across, facts)
    site = _input_site(config, facts)
    return site if config.output is None else replace(site, output=_output_site(config.output, site, facts))


def _input_site(config: SiteConfig, facts: ModelFacts) -> Site:
    if config.hook is not None:
        return _site_of_hook(config.hook, config.layer, facts)
    if config.kind is None:
        raise ConfigError("site.kind and site.hook are both null; give one of them")
    if config.kind not in HOOK_OF_KIND:
        raise ConfigError(f"site.kind={config.kind} is unknown; known: {', '.join(HOOK_OF_KIND)}, or give site.hook")
    layer = facts.n_layers // 2 if config.layer is None else config.layer
    _check_layer(f"site.layer={layer}", layer, facts)
    return Site(config.kind, layer, f"blocks.{layer}.{HOOK_OF_KIND[config.kind]}")


def _across(config: SiteConfig, across: Sequence[int | str], facts: ModelFacts) -> Site:
    """The sites of a crosscoder: layers of one kind, hooks, or both; with an output those of a cross-layer
    transcoder."""
    across = all_layers(facts) if across == ALL else across
    key = f"site.across={list(across)}"
    for name, value in (("layer", config.layer), ("hook", config.hook)):
        if value is not None:
            raise ConfigError(f"{key} says which sites; leave site.{name} null")
    for at in across:
        if isinstance(at, int):
            _check_layer(key, at, facts)
    sites = [
        _input_site(replace(config, hook=at) if isinstance(at, str) else replace(config, layer=at), facts)
        for at in across
    ]
    if len(sites) < 2 or len(set(sites)) < len(sites):
        raise ConfigError(f"{key}: a crosscoder has several sites, each once; give at least two")
    _check_one_width(key, sites, facts)
    if config.output is not None:
        sites = [replace(site, output=_output_site(config.output, site, facts)) for site in sites]
        _check_layers(key, config.output, sites)
        _check_one_width(key, [site.written for site in sites], facts)
    return replace(sites[0], beside=tuple(sites[1:]))


def _check_one_width(key: str, sites: Sequence[Site], facts: ModelFacts) -> None:
    widths = {site.hook: site_width(site, facts) for site in sites}
    if len(set(widths.values())) > 1 or None in widths.values():
        found = ", ".join(f"{hook} has {width or 'no known'}" for hook, width in widths.items())
        raise ConfigError(f"{key}: sites of a crosscoder have one known width; {found}")


def _check_layers(key: str, output: str, sites: Sequence[Site]) -> None:
    """Raises ConfigError where a latent would write to what the model computed before it was read."""
    if output not in HOOK_OF_KIND:
        raise ConfigError(f"{key}: site.output={output} is one place; give the kind that each layer writes to, mlp_out")
    layers = [-1 if site.layer is None else site.layer for site in sites]
    if layers != sorted(set(layers)):
        raise ConfigError(f"{key}: latents write to later layers alone; give each layer once, in the model's order")


def _output_site(output: str, site: Site, facts: ModelFacts) -> Site:
    """The site of `site.output`: a kind in the block of `site`, or a hook."""
    key = f"site.output={output}"
    if output in HOOK_OF_KIND:
        if site.layer is None:
            raise ConfigError(f"{key} is a kind in the block of {site.hook}, which is in none; give a hook name")
        output = f"blocks.{site.layer}.{HOOK_OF_KIND[output]}"
    found = _parse_own(key, output)
    if found.kind is None or found.layer is None:
        raise ConfigError(
            f"{key} is no known kind; give one of {', '.join(HOOK_OF_KIND)}, or the hook name of one"
            f" (blocks.L.{HOOK_OF_KIND['mlp_out']}, ...)"
        )
    _check_layer(key, found.layer, facts)
    if found.hook == site.hook:
        raise ConfigError(f"{key} is what is read; leave it null to reconstruct that")
    if site.kind is not None and _order(found) < _order(site):
        raise ConfigError(f"{key}: the model computes {found.hook} before {site.hook}; give a later place")
    return found


def _order(site: Site) -> tuple[int, int]:
    """Where in a forward pass a site of a known kind is computed."""
    assert site.layer is not None
    assert site.kind is not None
    return site.layer, list(HOOK_OF_KIND).index(site.kind)


def all_layers(facts: ModelFacts) -> list[int | str]:
    """What `site.across=all` stands for."""
    return list(range(facts.n_layers))


def model_of(hook: str) -> int:
    """Which of the models that are read together a hook is of: `models.1.blocks.3...` of the one after the first."""
    match = _OF_ANOTHER.fullmatch(hook)
    return 0 if match is None else int(match[1])


def own_hook(hook: str) -> str:
    """A hook as its model calls it."""
    match = _OF_ANOTHER.fullmatch(hook)
    return hook if match is None else match[2]


def of_model(hook: str, number: int) -> str:
    """A model's hook, as it is called where several models are read together: those of the first as it calls them."""
    return hook if number == 0 else f"models.{number}.{hook}"


def parse_hook(hook: str) -> Site:
    """The site of a hook name; kind None when it is none of the kinds. One of another model is parsed as its own."""
    match = _BLOCK_HOOK.fullmatch(own_hook(hook))
    if match is None:
        return Site(None, None, hook)
    return Site(KIND_OF_HOOK.get(match[2]), int(match[1]), hook)


def later_sites(site: Site, n_layers: int, most: int | None) -> tuple[str, ...]:
    """Hooks of the residual stream in later blocks, at most so many: where Braun et al. 2024 (arXiv 2405.12241)
    compare a spliced model with the clean one. Of the site's own kind if it is resid_post, else resid_pre."""
    kind = "resid_post" if site.kind == "resid_post" else "resid_pre"
    blocks = [] if site.layer is None else range(site.layer + 1, n_layers)[:most]
    return tuple(f"blocks.{layer}.{HOOK_OF_KIND[kind]}" for layer in blocks)


def site_width(site: Site, facts: ModelFacts) -> int | None:
    """Numbers per position at the site; None where only the loaded model can tell."""
    if site.kind is None:
        return None
    heads = facts.linear_z.get(-1 if site.layer is None else site.layer, facts.n_heads * facts.d_head)
    inner = {"mlp_post": facts.d_mlp, "attn_z": heads, "router": facts.n_experts}
    return inner.get(site.kind, facts.d_model)


def _site_of_hook(hook: str, layer: int | None, facts: ModelFacts) -> Site:
    site = _parse_own(f"site.hook={hook}", hook)
    if layer is not None and layer != site.layer:
        raise ConfigError(
            f"site.layer={layer} with site.hook={hook}: a hook names its own layer; leave site.layer null"
        )
    if site.layer is not None:
        _check_layer(f"site.hook={hook}", site.layer, facts)
    return site


def _parse_own(named: str, hook: str) -> Site:
    if own_hook(hook) != hook:
        raise ConfigError(f"{named} is one model's of several; give it as its model calls it, {own_hook(hook)}")
    return parse_hook(hook)


def _check_layer(named: str, layer: int, facts: ModelFacts) -> None:
    if not 0 <= layer < facts.n_layers:
        raise ConfigError(f"{named} is beyond the model: 0 to {facts.n_layers - 1}")
