"""`hydra/sweeper=grids`. Every Hydra program of the environment imports this file, so it imports next to nothing."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class GridsSweeperConf:
    """Keys of `hydra.sweeper`."""

    _target_: str = "hydra_plugins.sae_sweep_plugins.sweeper.GridsSweeper"
    grids: Any = field(default_factory=list)
    """Each a mapping of keys and groups to the values they take; the sweep is the union of their products."""
    params: Any = field(default_factory=dict)
    """Keys and groups of every grid that does not list them."""


ConfigStore.instance().store(group="hydra/sweeper", name="grids", node=GridsSweeperConf, provider="sae_sweep")


class GridsSweeper(Sweeper):
    """Asks the launcher for the union of the grids, all in one batch."""

    def __init__(self, grids: Any, params: Any) -> None:
        self._grids = _plain(grids)
        self._params = _plain(params)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Hydra's entry: `arguments` are the overrides of the command line."""
        from sae_sweep.launch.hydra.jobs import launch_grids

        return launch_grids(self._loader, self._launcher, self._grids, self._params, arguments)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
