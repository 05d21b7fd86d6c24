"""The second model of a crosscoder over two (`site.models`), which reads the same tokens as the first. No torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sae_sweep.config.schema import MemberConfig, ModelConfig
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.model.facts import FACTS, HUB_ID, ModelFacts, model_facts, model_folder, own_facts
from sae_sweep.model.sites import Site, later_sites, model_of, of_model, site_width


def models_of(config: MemberConfig) -> tuple[ModelConfig, ...]:
    """What a member's tokens are read by: its model, and with `site.models` a second one, run as the first is.

    Of a hub id planning knows no sizes: it has those of the first, which is of its class. Raises ConfigError for a
    folder that cannot be loaded.
    """
    if config.site.models is None:
        return (config.model,)
    path, revision = _revised(config.site.models[1])
    second = replace(config.model, path=path, name=path, revision=revision)
    try:
        if model_folder(second) is not None:
            return config.model, own_facts(second)
    except ConfigError as error:
        raise ConfigError(f"site.models={shown(config.site.models)}: {error}") from error
    facts = model_facts(config.model)
    return config.model, replace(second, **{name: getattr(facts, name) for name in FACTS})


def in_models(site: Site, config: MemberConfig, facts: Sequence[ModelFacts]) -> Site:
    """The site in each of the models, of which these are the facts. Raises ConfigError where one lacks it, or has
    another width there."""
    beside = list(site.beside)
    for number, own in enumerate(facts[1:], 1):
        for place in site.places:
            _check(place, config, facts[0], own)
        beside += [replace(place, hook=of_model(place.hook, number), beside=()) for place in site.places]
    return replace(site, beside=tuple(beside))


def later_in_models(places: Sequence[Site], facts: Sequence[ModelFacts], most: int | None) -> tuple[str, ...]:
    """Hooks of each model's residual stream after the last of the places in it, at most so many (`later_sites`)."""
    found: list[str] = []
    for number, own in enumerate(facts):
        inside = [place for place in places if model_of(place.hook) == number]
        last = max(inside, key=lambda place: -1 if place.layer is None else place.layer)
        found += [of_model(hook, number) for hook in later_sites(last, own.n_layers, most)]
    return tuple(found)


def _check(place: Site, config: MemberConfig, first: ModelFacts, own: ModelFacts) -> None:
    key = f"site.models={shown(config.site.models)}"
    if place.layer is not None and place.layer >= own.n_layers:
        raise ConfigError(f"{key}: the second has blocks 0 to {own.n_layers - 1}, and no {place.hook}")
    mine, theirs = site_width(place, first), site_width(place, own)
    if mine != theirs:
        raise ConfigError(
            f"{key}: the first has {mine} numbers at {place.hook} and the second {theirs}; give two of one width"
        )


def _revised(named: str) -> tuple[str, str | None]:
    """A folder or hub id, and the revision of the latter where it is said."""
    path, at, revision = named.rpartition("@")
    said = at and revision and HUB_ID.fullmatch(path) and not Path(named).expanduser().exists()
    return (path, revision) if said else (named, None)
