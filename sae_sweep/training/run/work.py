"""A group at work: where it writes, whom it tells how far it is, and who may stop it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sae_sweep.config.values import shown
from sae_sweep.folder.names import LOG
from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.host.signals import Stop
from sae_sweep.plan.groups import Group
from sae_sweep.plan.members import sparsity
from sae_sweep.tracking.display import Place
from sae_sweep.tracking.progress import Progress
from sae_sweep.tracking.sweep_run import SweepRun
from sae_sweep.tracking.tracker import Tracker
from sae_sweep.training.devices.ranks import Ranks
from sae_sweep.training.devices.waves import Waves
from sae_sweep.training.run.checkpointing import Keeper
from sae_sweep.training.step.member import TrainedMember


def places(group: Group) -> dict[str, Place]:
    """Where the members of a group belong, by label: in a bank, at a sparsity."""
    found = {}
    for bank in group.banks:
        name = f"{bank.members[0].config.sae.method()} at {bank.site.name}"
        for member in bank.members:
            knob, value = sparsity(member.config)
            found[member.label] = Place(name, f"{name}, {knob} {shown(value)}")
    return found


class Reached:
    """How far the members of a group are; those of other ranks as of the last meeting."""

    def __init__(self, group: Group, own: Sequence[TrainedMember]) -> None:
        self._members, self._own = group.members, own
        self._heard = {member.label: 0 for member in group.members}

    def hear(self, steps: Mapping[str, int]) -> None:
        """Take in how far members are, by label."""
        self._heard |= {label: step for label, step in steps.items() if label in self._heard}

    @property
    def own(self) -> dict[str, int]:
        """Steps of this rank's members, by label."""
        return {member.plan.label: member.step for member in self._own}

    @property
    def steps(self) -> dict[str, int]:
        """Steps of all members, by label."""
        return self._heard | self.own

    @property
    def tokens(self) -> int:
        """Of a member, on average."""
        steps = self.steps
        return sum(steps[m.label] * m.config.training.batch_size for m in self._members) // len(self._members)


@dataclass(frozen=True)
class Work:
    """What a group works with, beside what it is."""

    folder: SweepFolder
    tracker: Tracker
    progress: Progress
    stop: Stop
    keeper: Keeper
    ranks: Ranks
    reached: Reached
    latest: dict[str, tuple[float, float]] = field(default_factory=dict)
    """(L0, FVU) of this rank's members that have new ones since the last meeting."""
    sweep: SweepRun | None = None
    """The run that tells of all members; of the first rank."""

    def note(self, label: str, text: str) -> None:
        """A line with the time in the member's log.txt; metrics never hold wall-clock."""
        with (self.folder.member_folder(label) / LOG).open("a") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")

    def note_all(self, text: str) -> None:
        """The same of each of this rank's members."""
        for label in self.reached.own:
            self.note(label, text)

    def beat(self) -> None:
        """Say in progress.json how far the group is."""
        self.keeper.beat(self.reached.steps, self.progress)

    def judged(self, label: str, metrics: Mapping[str, Any]) -> None:
        """What a member was judged to be."""
        if self.sweep is not None:
            self.sweep.judged(label, metrics)

    def show(self, waves: Waves) -> None:
        """Say how far the members are, and who has failed."""
        self.progress.update(self.reached.steps, self.log(waves))
        self.beat()
        for member in waves.members:
            if member.failed is not None:
                self.progress.state(member.plan.label, "failed")

    def log(self, waves: Waves) -> dict[str, tuple[float, float]]:
        """Hand the new records to tracking; the last (L0, FVU) of each member that has one."""
        latest = {}
        for trainer in waves.settled:
            while trainer.records:  # one at a time: a disk that takes no more must not have a line twice later
                record = trainer.records[0]
                self.tracker.log(record.label, record.step, record.tokens, record.values, record.moment)
                latest[record.label] = (record.values["l0"], record.values["fvu"])
                del trainer.records[0]
        if self.sweep is not None:
            self.sweep.pace(self.reached.tokens, self.progress.rates, self.progress.eta)
        self.latest.update(latest)
        return latest
