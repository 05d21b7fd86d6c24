"""When a group leaves a checkpoint, what it has left, and how its members go on from there.

What a member's run depends on is its tensors, a file each, and its numbers (`MemberRecord`): its step (schedules are
functions of it), its place in the stream, its route. There is no random state: every generator is seeded by the
member's seed and its step, every permutation by data.seed and a position.

A checkpoint holds a member as it is, NaN and all, since where a diverging member is noticed must not depend on where
a run was interrupted. Beside such a one lies its last good state: that of the last checkpoint at which its parameters
were finite.
"""

import errno
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from time import monotonic, time
from typing import Any

from sae_sweep.config.schema import TrainingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder.checkpoints import (
    Checkpoint,
    Company,
    Damaged,
    MemberRecord,
    StateFolder,
    checksum,
    read_checkpoint,
    write_state,
)
from sae_sweep.folder.names import CURVES, LAST_GOOD, TIMES
from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.host.terminal import escaped
from sae_sweep.plan.groups import Group
from sae_sweep.plan.milestones import passed
from sae_sweep.tracking.jsonl import cut_back
from sae_sweep.tracking.progress import Progress
from sae_sweep.tracking.times import cut_back as cut_times
from sae_sweep.tracking.tracker import Tracker
from sae_sweep.training.devices.ranks import ALONE, Ranks
from sae_sweep.training.run.aside import Aside, Copied, Savable, pays
from sae_sweep.training.step.member import TrainedMember

BEAT_SECONDS = 2.0
"""Between two times that progress.json is written."""


def say(text: str) -> None:
    """A line for people."""
    print(f"sae-sweep: {escaped(text)}", file=sys.stderr, flush=True)


def save(
    company: Company,
    block: int,
    stamp: str,
    members: Sequence[tuple[Savable, MemberRecord]],
    before: Path | None,
    order: Sequence[str] = (),
    ranks: Ranks = ALONE,
) -> Checkpoint:
    """Write a checkpoint: each rank its `members`, into one folder; by identity in this `order`, or else in theirs;
    `before` is the folder of the one before, and a record's `good_step` that of the last good state before this one.
    Raises OSError, on all ranks; what was there stays."""
    with ExitStack() as writing:
        folder = ranks.shared(lambda: writing.enter_context(company.writing()))
        own = ranks.collected(lambda: [_save_member(folder, *member, before) for member in members])
        written = {record.identity: record for some in own for record in some}
        checkpoint = Checkpoint(folder, block, stamp, time(), tuple(written[identity] for identity in order or written))
        if ranks.first:
            write_state(checkpoint)
    return replace(checkpoint, folder=ranks.shared(lambda: company.folders()[0]))


def _save_member(folder: Path, member: Savable, record: MemberRecord, before: Path | None) -> MemberRecord:
    finite, file = member.finite, folder / record.file
    if not finite and record.good_step is not None and before is not None:
        kept = before / record.good_file  # the last good state comes along
        link_or_copy(kept if kept.exists() else before / record.file, folder / record.good_file)
    member.save(file)
    return replace(record, good_step=record.step if finite else record.good_step, crc32=checksum(file))


def link_or_copy(source: Path, target: Path) -> None:
    """Another name for a file, which costs nothing where the file system has them, or a copy of it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def newest_sound(
    company: Company, members: Mapping[str, TrainedMember], say: Callable[[str], None], ranks: Ranks = ALONE
) -> Checkpoint | None:
    """The newest checkpoint that can be used by these members of this rank, by identity; `say` is told of each that
    cannot. Each file is read by one rank."""
    for folder in ranks.shared(company.folders):
        try:
            checkpoint = ranks.shared(partial(read_checkpoint, folder))
            ranks.collected(partial(_check, checkpoint, members, ranks))
            return checkpoint
        except Damaged as error:
            say(f"checkpoint {folder} is damaged ({error}); going back to the one before")
    return None


def _check(checkpoint: Checkpoint, members: Mapping[str, TrainedMember], ranks: Ranks) -> None:
    """Raises Damaged where a file is not what was written, or not what its member has."""
    checkpoint.verify(checkpoint.members[ranks.rank :: ranks.size])
    for record in checkpoint.members:
        if record.identity in members:
            members[record.identity].check(checkpoint.folder / record.file)


class Keeper:
    """The checkpoints of one group."""

    def __init__(
        self, folder: SweepFolder, group: Group, members: Sequence[TrainedMember], ranks: Ranks = ALONE
    ) -> None:
        """`members` are this rank's; the group is that of all."""
        self._ranks = ranks
        self._order = [member.identity for member in group.members]
        self.say: Callable[[str], None] = say
        self._folder = folder
        self._training: TrainingConfig = group.members[0].config.training
        self._kind = group.members[0].config.data.kind
        self._key = group.key
        self._members = {member.plan.identity: member for member in members}
        self._state = StateFolder(folder.root, folder.task)
        self._company = self._state.company(group.key, self._order)
        self._last: Checkpoint | None = None
        self._aside = Aside()
        self._tracker: Tracker | None = None
        self._saved_at = monotonic()
        self._saved_tokens = 0
        self._beat_at = 0.0

    def resume(self, stamp: str) -> Checkpoint | None:
        """Set members to what the newest sound checkpoint has, and each metrics.jsonl to what it was then; that
        checkpoint. Raises ConfigError where it is of another stream."""
        self._last = checkpoint = self._newest(stamp)
        records = {record.identity: record for record in checkpoint.members} if checkpoint else {}
        for identity, member in self._members.items():
            record, label = records.get(identity), member.plan.label
            curves = self._folder.member_folder(label) / CURVES
            if not cut_back(curves, record.lines if record else 0):
                self.say(f"{curves} has lost lines since the checkpoint; they stay lost")
            cut_times(curves.with_name(TIMES), record.step if record else 0)
            if checkpoint is not None and record is not None:
                member.restore(record, checkpoint.folder / record.file)
                if all(self._folder.has_milestone(label, tokens) for tokens in member.milestones):
                    member.kept_step = record.step
        if checkpoint is not None:
            own = self._members.values()
            if said := passed([(member.plan.label, member.behind) for member in own], self._folder.has_milestone):
                self.say(said)
            if self._ranks.first:
                step, total = max((member.step, member.schedule.total_steps) for member in own)
                when = f"{datetime.fromtimestamp(checkpoint.time):%Y-%m-%d %H:%M:%S}"
                self.say(f"resuming at step {step:,} of {total:,}, from the checkpoint of {when}")
        return checkpoint

    def _newest(self, stamp: str) -> Checkpoint | None:
        """The newest sound checkpoint of all these members, theirs alone or one that others are in too.

        Each one that is damaged is said. Raises ConfigError where it is of another stream.
        """
        companies = self._ranks.shared(self._companies)
        for company in companies:
            found = newest_sound(company, self._members, self._tell, self._ranks)
            if found is not None and {m.identity for m in found.members} >= set(self._order):
                if found.stamp not in (stamp, ""):  # none: older versions left it out where outliers were
                    raise ConfigError(
                        f"data.kind={self._kind}: its tokens are not those that the checkpoint in {company.path} was"
                        " trained on; restore them, or remove that folder to begin anew"
                    )
                return found
        if companies:
            self._tell("no checkpoint can be used; training begins anew")
        return None

    def _companies(self) -> list[Company]:
        """That have the newest checkpoint of a member of the group."""
        homes = self._state.homes()
        paths = {homes[identity].folder.parent for identity in self._order if identity in homes}
        return [company for company in self._state.companies() if company.path in paths]

    def _tell(self, text: str) -> None:
        """What all ranks know is said once."""
        if self._ranks.first:
            self.say(text)

    def begin(self, tracker: Tracker, tokens: int) -> None:
        """From here on checkpoints fall due."""
        self._tracker, self._saved_at, self._saved_tokens = tracker, monotonic(), tokens

    def due(self, tokens: int) -> bool:
        """Whether it is time for a checkpoint; `tokens` are those of a member, on average."""
        minutes, every = self._training.checkpoint_minutes, self._training.checkpoint_tokens
        by_clock = minutes is not None and monotonic() - self._saved_at >= 60 * minutes
        return by_clock or (every is not None and tokens // int(every) > self._saved_tokens // int(every))

    def keep(self, block: int, stamp: str, tokens: int, *, aside: bool = False) -> None:
        """Write a checkpoint; `aside`, where that pays, while training goes on. Where the disk does not take it, that
        is said, and the one before stays."""
        self.settle()
        assert self._tracker is not None
        self._saved_at, self._saved_tokens = monotonic(), tokens
        try:
            members = self._ranks.ready(partial(self._records, self._tracker))
            if aside and self._ranks.alone and pays(list(self._members.values())):
                copies = [(Copied(member), record) for member, record in members]
                self._aside.begin(partial(self._save, block, stamp, copies))
            else:
                self._last = self._save(block, stamp, members)
        except OSError as error:
            self._missed(error)
        finally:
            self._saved_at = monotonic()  # what writing took is not work that a kill would lose

    def settle(self) -> None:
        """Wait for the checkpoint that is being written aside, if there is one."""
        try:
            self._last = self._aside.end() or self._last
        except OSError as error:
            self._missed(error)

    def _missed(self, error: OSError) -> None:
        self._tell(f"no checkpoint could be written ({error.strerror}: {error.filename}); {self.kept()}")

    def _records(self, tracker: Tracker) -> list[tuple[TrainedMember, MemberRecord]]:
        """This rank's members as they are, with the last steps at which they were known to be finite."""
        lines = tracker.sync()
        good = {record.identity: record.good_step for record in self._last.members} if self._last else {}
        return [(m, m.record(lines[m.plan.label], good.get(identity))) for identity, m in self._members.items()]

    def _save(self, block: int, stamp: str, members: Sequence[tuple[Savable, MemberRecord]]) -> Checkpoint:
        write = partial(save, self._company, block, stamp, members, self._last.folder if self._last else None)
        try:
            return write(self._order, self._ranks)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full or not self._ranks.shared(self._company.drop_oldest):
                raise
            return write(self._order, self._ranks)

    def kept(self) -> str:
        """What is there to go on from, in words."""
        self.settle()
        return f"the checkpoint of step {self._last.step:,} is kept" if self._last else "there is no checkpoint yet"

    def place_last_good(self, identity: str, folder: Path) -> int | None:
        """Put a failed member's last good state into its folder; the step it is of, None where there is none."""
        self.settle()
        if self._last is None:
            return None
        record = next(record for record in self._last.members if record.identity == identity)
        if record.good_step is not None:
            (folder / LAST_GOOD).unlink(missing_ok=True)
            link_or_copy(self._last.folder / record.good, folder / LAST_GOOD)
        return record.good_step

    def beat(self, steps: Mapping[str, int], progress: Progress) -> None:
        """Say in progress.json how far the group is, for `sae-sweep status`."""
        now = monotonic()
        if self._ranks.first and now >= self._beat_at:
            self._beat_at = now + BEAT_SECONDS
            entries: dict[str, Any] = {"group": self._key, "steps": dict(steps)}
            self._state.beat({**entries, "eta": progress.eta, "doing": progress.doing})
