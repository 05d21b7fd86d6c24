"""`hydra/launcher=ray`. Every Hydra program of the environment imports this file, so it imports next to nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class RayLauncherConf:
    """Keys of `hydra.launcher` (`sae_sweep/launch/ray_cluster.py`)."""

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


class RayLauncher(Launcher):
    """Runs one Ray task for each group of a batch."""

    def __init__(self, targets: Sequence[str] | None, **options: Any) -> None:
        self._targets = targets
        self._options = {key: _plain(value) for key, value in options.items()}
        self._earlier: list[Any] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's entry: one JobReturn per list of overrides."""
        from sae_sweep.launch.jobs import launch_jobs
        from sae_sweep.launch.ray_cluster import run_ray

        def run(configs: Any) -> Any:
            return run_ray(configs, dict(self._options))

        return launch_jobs(self._loader, self._config, job_overrides, self._targets, self._earlier, run)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
