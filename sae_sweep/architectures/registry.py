"""Every architecture, by the name `sae.architecture` takes. A new one is one line here."""

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.gated import GatedConfig
from sae_sweep.architectures.standard import StandardConfig
from sae_sweep.architectures.topk import TopKConfig

ARCHITECTURES: dict[str, type[SaeConfig]] = {
    "standard": StandardConfig,
    "gated": GatedConfig,
    "topk": TopKConfig,
}
