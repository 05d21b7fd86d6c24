"""`hydra/launcher=local`. Every Hydra program of the environment imports this file, so it imports next to nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class LocalLauncherConf:
    """Keys of `hydra.launcher`."""

    _target_: str = "hydra_plugins.sae_sweep_plugins.launcher.LocalLauncher"
    targets: Any = None
    """Metrics a job returns to the sweeper, in order (`[l0, ce_recovered]`, for optuna); null returns them all."""


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="sae_sweep")


class LocalLauncher(Launcher):
    """Trains all jobs of a batch as one sweep, in this process."""

    def __init__(self, targets: Sequence[str] | None) -> None:
        self._targets = targets
        self._earlier: list[Any] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's entry: one JobReturn per list of overrides. A sweeper may call it once per batch."""
        from sae_sweep.launch.jobs import launch_jobs

        return launch_jobs(self._loader, self._config, job_overrides, self._targets, self._earlier)
