"""Trains a sweep in this process."""

from collections.abc import Sequence

from sae_sweep.config.schema import LauncherConfig, MemberConfig
from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.host.signals import Stop
from sae_sweep.launch.groups import train_missing
from sae_sweep.launch.standing import elsewhere
from sae_sweep.launch.sweep import Outcome, launch
from sae_sweep.launch.tasks import Task
from sae_sweep.plan.groups import Plan


def run_sweep(configs: Sequence[MemberConfig]) -> list[Outcome]:
    """Train what is missing of the sweep here; see `launch` for what it returns and raises."""
    return launch(configs, Here())


class Here:
    """This process, and the ranks that it starts."""

    def check(self, launcher: LauncherConfig) -> None:
        """Nothing: the devices are counted where torch is."""

    def words(self, number: int) -> None:
        """It goes without saying."""

    def train(self, plan: Plan, folder: SweepFolder, others: dict[str, Task], stop: Stop) -> None:
        """Train every group. Raises ConfigError where a worker has one of the members, and as `train_missing`."""
        finished = folder.finished(plan)
        taken = {m.label: others[m.identity] for m in plan.members if m.identity in others.keys() - finished}
        if taken:
            raise elsewhere(list(taken), next(iter(taken.values())))
        train_missing(plan, folder, stop)
