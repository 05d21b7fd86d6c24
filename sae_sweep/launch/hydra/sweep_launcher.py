"""What our launchers share. Every Hydra program of the environment imports this, so it imports next to nothing."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class SweepLauncher(Launcher):
    """Trains all jobs of a batch as one sweep. A sweeper may launch several batches, one after the other."""

    def __init__(self, targets: Sequence[str] | None, **options: Any) -> None:
        self.targets = targets
        self.options = {
            key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for key, value in options.items()
        }
        self._earlier: list[Any] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._config = config

    @abstractmethod
    def run(self, configs: Any) -> Any:
        """One outcome per config."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's entry: one JobReturn per list of overrides."""
        from sae_sweep.launch.hydra.jobs import launch_jobs

        return launch_jobs(self._loader, self._config, job_overrides, self.targets, self._earlier, self.run)
