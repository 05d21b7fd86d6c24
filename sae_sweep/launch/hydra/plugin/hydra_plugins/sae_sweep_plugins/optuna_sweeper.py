"""`hydra/sweeper=optuna`. Every Hydra program of the environment imports this file, so it imports next to nothing."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class OptunaSweeperConf:
    """Keys of `hydra.sweeper`."""

    _target_: str = "hydra_plugins.sae_sweep_plugins.optuna_sweeper.OptunaSweeper"
    metrics: Any = field(default_factory=lambda: ["l0", "ce_recovered"])
    """What members are judged by; several search a frontier."""
    directions: Any = field(default_factory=lambda: ["minimize", "maximize"])
    """Of each metric: minimize or maximize."""
    params: Any = field(default_factory=dict)
    """What is searched, in Hydra's words: `tag(log, interval(8, 128))`, `choice(gated, topk)`, `range(8, 64, 8)`."""
    trials: Any = 32
    """Members in all."""
    batch: Any = 8
    """Members that are proposed, and trained in one pass, together."""
    seed: Any = 0
    """Of the proposals."""


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="sae_sweep")


class OptunaSweeper(Sweeper):
    """Asks the launcher for what Optuna proposes, batch by batch."""

    def __init__(self, **options: Any) -> None:
        self._options = {key: _plain(value) for key, value in options.items()}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Hydra's entry: `arguments` are the overrides of the command line."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from sae_sweep.launch.hydra.search import search

        return search(self._launcher, self._options, arguments, OverridesParser.create(config_loader=self._loader))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
