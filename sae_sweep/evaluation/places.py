"""An SAE at a site of a model, as it is judged there."""

from collections.abc import Mapping, Sequence

from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.model.sites import Site
from sae_sweep.saes.inference import InferenceSae


def placed(label: str, sae: InferenceSae, site: Site, watched: Sequence[str] = ()) -> SplicedSae:
    """The SAE at a site, with hooks after it that are watched. Raises ConfigError for a site of another kind: where an
    SAE is a transcoder, or of several places, and the site is not, or the other way round."""
    if sae.sites != 1 + len(site.beside):
        raise ConfigError(f"site.across: {label} is of {sae.sites} places at once, and {site.name} is {_many(site)}")
    if sae.transcodes and site.output is None:
        raise ConfigError(f"site.output: {label} is a transcoder, and {site.name} is one place; give site.output too")
    if site.output is not None and not sae.transcodes:
        raise ConfigError(f"site.output={site.output.hook}: {label} reconstructs what it reads; leave it null")
    reads, beside = site.hook if site.output else None, tuple(other.hook for other in site.beside)
    return SplicedSae(label, site.written.hook, sae, reads=reads, beside=beside, watched=tuple(watched))


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
