"""When a group leaves a checkpoint, and what it has left."""

import errno
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

from sae_sweep.config.schema import TrainingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder.checkpoints import Checkpoint, Company, SavedMember, StateFolder
from sae_sweep.folder.names import LAST_GOOD
from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.plan.groups import Group
from sae_sweep.tracking.progress import Progress
from sae_sweep.tracking.tracker import Tracker
from sae_sweep.training.devices.ranks import ALONE, Ranks
from sae_sweep.training.run.checkpoint import Located, Saving, newest_sound, place_good_state, save
from sae_sweep.training.step.trainer import BankTrainer

BEAT_SECONDS = 2.0
"""Between two times that progress.json is written."""

Savings = Callable[[Mapping[str, int], Mapping[str, SavedMember]], Sequence[Saving]]
"""(bytes of each metrics.jsonl by label, what the checkpoint before has by identity) -> the members to save."""


def say(text: str) -> None:
    """A line for people."""
    print(f"sae-sweep: {text}", file=sys.stderr, flush=True)


def when(seconds: float) -> str:
    """A moment in seconds since 1970, as people read it."""
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


class Keeper:
    """The checkpoints of one group."""

    def __init__(
        self, folder: SweepFolder, group: Group, trainers: Sequence[BankTrainer], ranks: Ranks = ALONE
    ) -> None:
        """`trainers` are this rank's; the group is that of all."""
        self._ranks = ranks
        self._order = [member.identity for member in group.members]
        self.say: Callable[[str], None] = say
        self._folder = folder
        self._training: TrainingConfig = group.members[0].config.training
        self._key = group.key
        self._located: Located = {
            state.member.identity: (trainer, i) for trainer in trainers for i, state in enumerate(trainer.states)
        }
        self._state = StateFolder(folder.root, folder.task)
        self._company = self._state.company(group.key, self._order)
        self._last: Checkpoint | None = None
        self._tracker: Tracker | None = None
        self._saved_at = monotonic()
        self._saved_tokens = 0
        self._beat_at = 0.0

    def newest(self, stamp: str) -> Checkpoint | None:
        """The newest sound checkpoint of all these members, theirs alone or one that others are in too.

        Each one that is damaged is said. Raises ConfigError where it is of another stream.
        """
        companies = self._ranks.shared(self._companies)
        for company in companies:
            found = newest_sound(company, self._located, self._tell, self._ranks)
            if found is not None and {m.identity for m in found.members} >= set(self._order):
                if found.stamp != stamp:
                    raise ConfigError(
                        f"data.kind={self._kind}: its tokens are not those that the checkpoint in {company.path} was"
                        " trained on; restore them, or remove that folder to begin anew"
                    )
                self._last = found
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

    @property
    def _kind(self) -> str:
        trainer, index = next(iter(self._located.values()))
        return trainer.states[index].member.config.data.kind

    def begin(self, tracker: Tracker, steps: Mapping[str, int], tokens: int) -> None:
        """From here on checkpoints fall due; wandb is told what the one gone on from covers."""
        self._tracker, self._saved_at, self._saved_tokens = tracker, monotonic(), tokens
        tracker.covered(steps)

    def due(self, tokens: int) -> bool:
        """Whether it is time for a checkpoint; `tokens` are those of a member, on average."""
        minutes, every = self._training.checkpoint_minutes, self._training.checkpoint_tokens
        by_clock = minutes is not None and monotonic() - self._saved_at >= 60 * minutes
        return by_clock or (every is not None and tokens // int(every) > self._saved_tokens // int(every))

    def keep(self, block: int, stamp: str, tokens: int, savings: Savings) -> None:
        """Write a checkpoint, then tell wandb what it covers. Where the disk does not take it, that is said, and the
        one before stays."""
        assert self._tracker is not None
        self._saved_at, self._saved_tokens = monotonic(), tokens
        before = {member.identity: member for member in self._last.members} if self._last else {}
        try:
            tracker = self._tracker
            members = self._ranks.ready(lambda: savings(tracker.sync(), before))
            self._last = self._save(block, stamp, members)
        except OSError as error:
            self._tell(f"no checkpoint could be written ({error.strerror}: {error.filename}); {self.kept()}")
            return
        finally:
            self._saved_at = monotonic()  # what writing took is not work that a kill would lose
        self._tracker.covered({m.label: m.step for m in self._last.members if m.identity in self._located})

    def _save(self, block: int, stamp: str, members: Sequence[Saving]) -> Checkpoint:
        before = self._last.folder if self._last else None
        try:
            return save(self._company, block, stamp, members, before, self._order, self._ranks)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full or not self._ranks.shared(self._company.drop_oldest):
                raise
            return save(self._company, block, stamp, members, before, self._order, self._ranks)

    def kept(self) -> str:
        """What is there to go on from, in words."""
        return f"the checkpoint of step {self._last.step:,} is kept" if self._last else "there is no checkpoint yet"

    def place_last_good(self, identity: str, folder: Path) -> int | None:
        """Put a failed member's last good state into its folder; the step it is of, None where there is none."""
        if self._last is None:
            return None
        member = next(member for member in self._last.members if member.identity == identity)
        return member.good_step if place_good_state(self._last, member, folder / LAST_GOOD) else None

    def beat(self, steps: Mapping[str, int], progress: Progress) -> None:
        """Say in progress.json how far the group is, for `sae-sweep status`."""
        now = monotonic()
        if self._ranks.first and now >= self._beat_at:
            self._beat_at = now + BEAT_SECONDS
            entries: dict[str, Any] = {"group": self._key, "steps": dict(steps)}
            self._state.beat({**entries, "eta": progress.eta, "doing": progress.doing})
