"""Train and compare whole frontiers of sparse autoencoders in one pass over a language model's activations.

What is used from Python is named here, and read only when it is used: importing this package brings in no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sae_sweep.errors import ConfigError

if TYPE_CHECKING:
    from sae_sweep.api.asking import analyse
    from sae_sweep.api.harvesting import harvest
    from sae_sweep.api.interventions import splice
    from sae_sweep.api.judging import evaluate
    from sae_sweep.api.loading import load
    from sae_sweep.api.model import Model
    from sae_sweep.api.sae import Sae
    from sae_sweep.api.sweep import Sweep
    from sae_sweep.api.sweep import open_sweep as open  # noqa: A004 - hides the builtin in this module alone, which opens no file; users write `ss.open`
    from sae_sweep.api.training import train

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "Model",
    "Sae",
    "Sweep",
    "__version__",
    "analyse",
    "evaluate",
    "harvest",
    "load",
    "open",
    "splice",
    "train",
]

_HOMES = {
    "Model": "model.Model",
    "Sae": "sae.Sae",
    "Sweep": "sweep.Sweep",
    "analyse": "asking.analyse",
    "evaluate": "judging.evaluate",
    "harvest": "harvesting.harvest",
    "load": "loading.load",
    "open": "sweep.open_sweep",
    "splice": "interventions.splice",
    "train": "training.train",
}
"""Where in sae_sweep.api each name is."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, own = _HOMES[name].partition(".")
    return getattr(import_module(f"{__name__}.api.{module}"), own)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
