"""`hydra/launcher=slurm`. Every Hydra program of the environment imports this file, so it imports next to nothing."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from sae_sweep.launch.hydra.sweep_launcher import SweepLauncher


@dataclass
class SlurmLauncherConf:
    """Keys of `hydra.launcher`; null leaves it to the cluster (`launch/clusters/slurm.py` says what each is)."""

    _target_: str = "hydra_plugins.sae_sweep_plugins.slurm_launcher.SlurmLauncher"
    partition: Any = None
    account: Any = None
    time: Any = None
    """As SLURM writes it, in quotes: "24:00:00", "1-12:00:00"."""
    gpus: Any = 1
    """Of one group, like cpus and mem."""
    cpus: Any = 8
    mem: Any = None
    """As SLURM writes it: 64G."""
    parallel: Any = None
    """Groups that run at once."""
    setup: Any = field(default_factory=list)
    """Shell lines that a job begins with."""
    sbatch: Any = field(default_factory=dict)
    """Further options of sbatch: {qos: high, constraint: a100}."""
    signal_seconds: Any = 120
    """Before its time limit a job leaves a checkpoint and goes back into the queue."""
    wait: Any = True
    """Stay until all is done; false returns as soon as all is submitted."""
    targets: Any = None
    """Metrics a job returns to the sweeper, in order (`[l0, ce_recovered]`, for optuna); null returns them all."""


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="sae_sweep")


class SlurmLauncher(SweepLauncher):
    """Submits one array task for each group of a batch."""

    def run(self, configs: Any) -> Any:
        from sae_sweep.launch.clusters.slurm import run_slurm

        return run_slurm(configs, self.options, self.targets)
