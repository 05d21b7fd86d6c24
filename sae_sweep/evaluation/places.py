"""An SAE at a site of a model, as it is judged there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.model.sites import Site
from sae_sweep.saes.inference import InferenceSae


def placed(label: str, sae: InferenceSae, site: Site, watched: Sequence[str] = ()) -> SplicedSae:
    """The SAE at a site, with hooks after it that are watched. Raises ConfigError for a site of another kind: where an
    SAE is a transcoder, or of several places, and the site is not, or the other way round."""
    if sae.places != len(site.places):
        raise ConfigError(f"site.across: {label} is of {sae.places} places at once, and {site.name} is {_many(site)}")
    if sae.transcodes and site.output is None:
        raise ConfigError(f"site.output: {label} is a transcoder, and {site.name} is one place; give site.output too")
    if site.output is not None and not sae.transcodes:
        raise ConfigError(f"site.output={site.output.hook}: {label} reconstructs what it reads; leave it null")
    return at_site(SplicedSae(label, site.hook, sae, watched=tuple(watched)), site)


def at_site(one: SplicedSae, site: Site) -> SplicedSae:
    """The same, reading and writing where a site says."""
    return between(one, site.reads, site.writes) if site.output else between(one, (), site.writes)


def between(one: SplicedSae, reads: Sequence[str], writes: Sequence[str]) -> SplicedSae:
    """The same, reading some hooks, or none but those that it writes."""
    hook, *beside = writes
    first = reads[0] if reads else None
    return replace(one, hook=hook, reads=first, beside=tuple(beside), reads_beside=tuple(reads[1:]))


def check_widths(one: SplicedSae, widths: Mapping[str, int | None], asked: str) -> None:
    """Raises ConfigError where an SAE is for other numbers than there are at its hooks, by hook; `asked` says what
    would mend it. A width that is not known beforehand is not compared."""
    sites = len(one.hooks)
    for hook, own in ((one.reads or one.hook, one.sae.d), (one.hook, one.sae.d_out)):
        width = widths.get(hook)
        if width is not None and sites * width != own:
            raise ConfigError(f"{one.label} is for {own} numbers, and {hook} has {sites * width}; {asked}")


def _many(site: Site) -> str:
    return "one" if not site.beside else str(1 + len(site.beside))
