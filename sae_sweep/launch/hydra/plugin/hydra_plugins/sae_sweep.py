"""What Hydra finds of ours, under the names that `configs/hydra/` gives it: launchers, sweepers.

Hydra 1.3 takes them from `hydra_plugins` alone, and every Hydra program of the environment imports this file, so it
imports next to nothing.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class SweepLauncher(Launcher):
    """Trains all jobs of a batch as one sweep, here or on a cluster. A sweeper may launch several batches in turn."""

    def __init__(self, cluster: str | None, targets: Sequence[str] | None, **options: Any) -> None:
        self._cluster, self._targets, self._options = cluster, targets, _plain(options)
        self._earlier: list[Any] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader, self._config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's entry: one JobReturn per list of overrides."""
        from sae_sweep.launch.hydra.jobs import launch_jobs

        batch = self._loader, self._config, job_overrides
        return launch_jobs(*batch, self._targets, self._earlier, self._cluster, self._options)


class GridsSweeper(Sweeper):
    """Asks the launcher for the union of the grids, all in one batch."""

    def __init__(self, **options: Any) -> None:
        self._options = _plain(options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Hydra's entry: `arguments` are the overrides of the command line."""
        from sae_sweep.launch.hydra.jobs import launch_grids

        return launch_grids(self._loader, self._launcher, **self._options, command_line=arguments)


class OptunaSweeper(GridsSweeper):
    """Asks the launcher for what Optuna proposes, batch by batch."""

    def sweep(self, arguments: list[str]) -> Any:
        """Hydra's entry: `arguments` are the overrides of the command line."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from sae_sweep.launch.hydra.search import search

        return search(self._launcher, self._options, arguments, OverridesParser.create(config_loader=self._loader))


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in options.items()
    }
