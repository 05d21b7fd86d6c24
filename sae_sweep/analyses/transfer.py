"""What members are worth elsewhere: at other sites of the sweep, and at their own in other models.

As they are; with the mean and spread of activations there made those of their own site, in closed form (`rescaled`);
and trained on there for a few tokens by the trainer that they were made by (`tuned`). The control of a number at
another site is the member that is the same but was trained there; in another model it is its own at home, where there
is none. Explained variance is about the mean of a block of training tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sae_sweep.analyses.moving.elsewhere import Moved, in_models, sizes_at, zeros
from sae_sweep.analyses.moving.judged import Judged, add
from sae_sweep.analyses.moving.rescaled import Size
from sae_sweep.analyses.moving.targets import KEY, Target, targets_of
from sae_sweep.analyses.moving.tuned import can_be_tuned, tuned
from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae, check_model
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session, Stream
from sae_sweep.errors import ConfigError

STATES = ("as_is", "rescaled", "tuned")


@dataclass(frozen=True)
class Config:
    """Other models, and how members are trained on."""

    models: list[str]
    tokens: float
    lr: float


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """CE recovered, KL, explained variance and L0 of each member at each place."""
    targets = _targets(saes, config)
    asked = [target for target in targets if can_be_tuned(target)] if config.tokens else []
    grown = tuned(session.kept.folder(), asked, config.tokens, config.lr, session.told) if asked else {}
    homes, sizes = _homes(session)
    means = {sae.label: session.means(sae.label) for sae in saes}
    moved: list[Moved] = []
    for target in targets:
        if target.model is None:
            stream, own = homes[target.member.label]
            there = sizes[session.streams.opened.index(stream)][target.hook]
            rows, device = stream.evaluator.rows, stream.model.device
            moved.append(Moved.of(session.kept, target, rows, device, (own, there)))
    while (batch := (yield)) is not None:
        for label in batch.saes:
            add(means[label], batch, label, zeros(batch, batch, label), homes[label][1].mean_D)
        for one in moved:
            if one.target.member.label in batch.saes:
                one.add(batch)
    moved += in_models(session, [target for target in targets if target.model is not None], homes)
    home = {label: Judged.of_means(own) for label, own in means.items()}
    found = {one.target.label: _states(one, grown) for one in moved}
    members = {sae.label: _numbers(sae, [one.target for one in moved], found, home) for sae in saes}
    return Result(members=members, figure=_figure(saes, targets, members))


def _targets(saes: Sequence[FinishedSae], config: Config) -> list[Target]:
    """Raises ConfigError for what cannot be asked."""
    check_model(saes)
    if config.tokens < 0:
        raise ConfigError(f"{KEY}.tokens={config.tokens:g} must not be negative")
    if config.lr <= 0:
        raise ConfigError(f"{KEY}.lr={config.lr:g} must be above 0")
    return targets_of(saes, list(dict.fromkeys(config.models)))


def _homes(session: Session) -> tuple[dict[str, tuple[Stream, Size]], list[dict[str, Size]]]:
    """Of each member its stream and what activations are like at its site; and the latter of each stream, by hook."""
    sizes, homes = list[dict[str, Size]](), dict[str, tuple[Stream, Size]]()
    for number, stream in enumerate(session.streams.opened):
        hooks = tuple(dict.fromkeys(one.hook for one in stream.saes.values()))
        sizes.append(sizes_at(session.kept, str(number), stream.source, hooks))
        homes |= {label: (stream, sizes[number][one.hook]) for label, one in stream.saes.items()}
    return homes, sizes


def _states(moved: Moved, grown: Mapping[str, Path]) -> dict[str, Judged]:
    """What a member is worth at a place, by state."""
    found = moved.judged()
    folder = grown.get(moved.target.label)
    trained = Judged.of_rows(folder, found["as_is"]) if folder is not None else None
    return found if trained is None else {**found, "tuned": trained}


def _numbers(
    sae: FinishedSae, targets: Sequence[Target], found: Mapping[str, Mapping[str, Judged]], home: Mapping[str, Judged]
) -> dict[str, Number]:
    """A member's, at home and at each of its places."""
    numbers = {f"home {name}": number for name, number in home[sae.label].numbers().items()}
    for target in targets:
        if target.member is sae:
            native = sae if target.model is not None else target.native
            against = None if native is None else home[native.label]
            for state, judged in found[target.label].items():
                numbers |= {f"{target.name} {state} {name}": one for name, one in judged.numbers(against).items()}
    return numbers


def _figure(
    saes: Sequence[FinishedSae], targets: Sequence[Target], members: Mapping[str, Mapping[str, Number]]
) -> Figure:
    """CE recovered from each site, in each state, at each place: the mean over members."""
    sources = dict.fromkeys(sae.member.site.hook for sae in saes)
    columns = list(dict.fromkeys((*sources, *(target.name for target in targets))))
    series = []
    for source in sources:
        own = [members[sae.label] for sae in saes if sae.member.site.hook == source]
        for state in STATES:
            names = ["home" if name == source else f"{name} {state}" for name in columns]
            cells = [[numbers.get(f"{name} ce_recovered") for numbers in own] for name in names]
            values = [[one.value for one in cell if one is not None] for cell in cells]
            y = [sum(each) / len(each) if each else None for each in values]
            series.append(Series(f"{source}, {state.replace('_', ' ')}", columns, y))
    return Figure("CE recovered elsewhere, the mean over members", "place", "from, state", series, "map")
