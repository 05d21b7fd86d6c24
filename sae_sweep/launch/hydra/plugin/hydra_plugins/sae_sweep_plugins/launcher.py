"""`hydra/launcher=local`. Every Hydra program of the environment imports this file, so it imports next to nothing."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

from sae_sweep.launch.hydra.sweep_launcher import SweepLauncher


@dataclass
class LocalLauncherConf:
    """Keys of `hydra.launcher`."""

    _target_: str = "hydra_plugins.sae_sweep_plugins.launcher.LocalLauncher"
    targets: Any = None
    """Metrics a job returns to the sweeper, in order (`[l0, ce_recovered]`, for optuna); null returns them all."""


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConf, provider="sae_sweep")


class LocalLauncher(SweepLauncher):
    """In this process."""

    def run(self, configs: Any) -> Any:
        from sae_sweep.launch.local import run_sweep

        return run_sweep(configs)
