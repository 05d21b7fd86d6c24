"""What a group works with, beside what it is."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sae_sweep.folder.names import LOG
from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.host.signals import Stop
from sae_sweep.tracking.progress import Progress
from sae_sweep.tracking.tracker import Tracker
from sae_sweep.training.devices.ranks import Ranks
from sae_sweep.training.run.checkpointing import Keeper


@dataclass(frozen=True)
class Work:
    """Where a group writes, whom it tells, and who may stop it."""

    folder: SweepFolder
    tracker: Tracker
    progress: Progress
    stop: Stop
    keeper: Keeper
    ranks: Ranks

    def note(self, label: str, text: str) -> None:
        """A line with the time in the member's log.txt; metrics never hold wall-clock."""
        with (self.folder.member_folder(label) / LOG).open("a") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")
