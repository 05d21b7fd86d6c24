"""Where members are taken: to other sites of the sweep, and to their own in other models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sae_sweep.analyses.matches.pairs import PLACE
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.others import other_model
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.plan.groups import stream_key
from sae_sweep.plan.members import resolve_member

KEY = "analysis.transfer"


@dataclass(frozen=True)
class Target:
    """A place for one member."""

    member: FinishedSae
    hook: str
    model: str | None
    """The path of another model; None is its own."""
    config: MemberConfig
    """The member's, with this place for its own."""
    native: FinishedSae | None
    """The member that is the same but for its place, and was trained there."""

    @property
    def name(self) -> str:
        """As results have it."""
        return self.hook if self.model is None else f"{self.hook} of {Path(self.model).name or self.model}"

    @property
    def label(self) -> str:
        """The member's, with the place."""
        return f"{self.member.label} at {self.name}"


def targets_of(saes: Sequence[FinishedSae], models: Sequence[str]) -> list[Target]:
    """All of them. Raises ConfigError for members that cannot be taken anywhere, and where there is no place."""
    for sae in saes:
        site = sae.member.site
        if site.output or site.beside:
            raise ConfigError(f"{KEY}: {sae.label} is no autoencoder of one site; --member those that are")
    found = []
    for sae in saes:
        streams = [one for one in saes if stream_key(one.member.config) == stream_key(sae.member.config)]
        for hook in dict.fromkeys(one.member.site.hook for one in streams if one.sae.d == sae.sae.d):
            if hook != sae.member.site.hook:
                there = [one for one in streams if one.member.site.hook == hook]
                native = next((one for one in there if one.alike(sae, *PLACE)), None)
                config = replace(sae.member.config, site=there[0].member.config.site)
                found.append(Target(sae, hook, None, config, native))
        for path in models:
            found.append(Target(sae, sae.member.site.hook, path, _in_model(sae, path), None))
    if not found:
        raise ConfigError(f"{KEY}: the members have one site, or sites of different widths; give models=[FOLDER,...]")
    return found


def _in_model(sae: FinishedSae, path: str) -> MemberConfig:
    """A member's config with another model. Raises ConfigError where that has no such site, or one of another width."""
    config = replace(sae.member.config, model=other_model(f"{KEY}.models", sae.member.config.model, path))
    try:
        d = resolve_member(config, "").d
    except ConfigError as error:
        raise ConfigError(f"{KEY}.models: {path}: {error}") from error
    if d != sae.sae.d:
        where = sae.member.site.hook
        raise ConfigError(f"{KEY}.models: {path} has {d} numbers at {where}, and {sae.label} is for {sae.sae.d}")
    return config
