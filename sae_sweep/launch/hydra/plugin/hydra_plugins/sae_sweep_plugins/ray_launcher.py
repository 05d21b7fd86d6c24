"""`hydra/launcher=ray`. Every Hydra program of the environment imports this file, so it imports next to nothing."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore

from sae_sweep.launch.hydra.sweep_launcher import SweepLauncher


@dataclass
class RayLauncherConf:
    """Keys of `hydra.launcher` (`sae_sweep/launch/clusters/ray.py`)."""

    _target_: str = "hydra_plugins.sae_sweep_plugins.ray_launcher.RayLauncher"
    address: Any = None
    """Of a cluster that exists (auto, host:port, ray://host:port); null starts one on this machine."""
    cpus: Any = 1
    """Of one group, like gpus and memory_gb; may be a fraction."""
    gpus: Any = 0
    memory_gb: Any = None
    resources: Any = field(default_factory=dict)
    """Custom resources of one group: {a100: 1}."""
    retries: Any = 3
    """How often a group is run again when its worker has died."""
    targets: Any = None
    """Metrics a job returns to the sweeper, in order (`[l0, ce_recovered]`, for optuna); null returns them all."""


ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayLauncherConf, provider="sae_sweep")


class RayLauncher(SweepLauncher):
    """Runs one Ray task for each group of a batch."""

    def run(self, configs: Any) -> Any:
        from sae_sweep.launch.clusters.ray import run_ray

        return run_ray(configs, self.options)
