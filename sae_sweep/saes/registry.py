"""The maths of every architecture, by the name `sae.architecture` takes. A new one is one line here."""

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.saes.base import SaeMaths
from sae_sweep.saes.gated import Gated
from sae_sweep.saes.standard import Standard
from sae_sweep.saes.topk import TopK

MATHS: dict[str, type[SaeMaths]] = {
    "standard": Standard,
    "gated": Gated,
    "topk": TopK,
}


def maths_of(config: SaeConfig) -> SaeMaths:
    """The equations of one config; members of one bank share them."""
    return MATHS[config.architecture](config)
