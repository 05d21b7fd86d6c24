"""From a config to its equations."""

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.host.kinds import Kinds
from sae_sweep.saes.base import SaeMaths

EQUATIONS = Kinds("sae_sweep.architectures", "sae_sweep.architectures", inside="maths")


def maths_of(config: SaeConfig) -> SaeMaths:
    """The equations of one config; members of one bank share them."""
    maths: SaeMaths = EQUATIONS[config.architecture].Maths(config)
    return maths
