"""What a worker does: trains one group that was handed over, in the shared folder of its sweep, as `local` would."""

import os
from pathlib import Path

from sae_sweep.errors import ConfigError, SweepFailed
from sae_sweep.folder.lock import held
from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.host.signals import stopping
from sae_sweep.launch.groups import train_missing
from sae_sweep.launch.standing import states
from sae_sweep.launch.tasks import Task
from sae_sweep.plan.groups import plan_sweep


def train_task(place: Path) -> None:
    """Train what is missing of the task in the folder `place`; it goes on from the newest checkpoint there is.

    Raises SweepFailed when a member failed, and what `train_missing` raises.
    """
    task = Task.at(place)
    configs = task.configs
    os.chdir(task.directory)
    folder = SweepFolder(task.root, task.name)
    with held(task.root, task.name), stopping(once=True) as stop:
        plan = folder.named(plan_sweep(configs))
        try:
            folder.check_content(plan)
            train_missing(plan, folder, stop)
        except ConfigError as error:  # it shows only where the model and its data are
            folder.mark([member.label for member in plan.members], "failed", str(error))
            raise
        if any(entry["state"] == "failed" for entry in states(task).values()):
            raise SweepFailed
