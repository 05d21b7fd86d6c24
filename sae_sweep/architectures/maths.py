"""From a config to its equations."""

from importlib import import_module

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.saes.base import SaeMaths


def maths_of(config: SaeConfig) -> SaeMaths:
    """The equations of one config; members of one bank share them."""
    module, _, name = config.maths().rpartition(".")
    maths: SaeMaths = getattr(import_module(module), name)(config)
    return maths
