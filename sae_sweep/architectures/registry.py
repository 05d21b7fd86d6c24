"""Every architecture, by the name `sae.architecture` takes. A new one is one line here."""

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.batchtopk.facts import BatchTopKConfig
from sae_sweep.architectures.gated.facts import GatedConfig
from sae_sweep.architectures.jumprelu.facts import JumpReluConfig
from sae_sweep.architectures.matryoshka.facts import MatryoshkaConfig
from sae_sweep.architectures.p_anneal.facts import PAnnealConfig
from sae_sweep.architectures.standard.facts import StandardConfig
from sae_sweep.architectures.topk.facts import TopKConfig

ARCHITECTURES: dict[str, type[SaeConfig]] = {
    "standard": StandardConfig,
    "p_anneal": PAnnealConfig,
    "gated": GatedConfig,
    "jumprelu": JumpReluConfig,
    "topk": TopKConfig,
    "batchtopk": BatchTopKConfig,
    "matryoshka": MatryoshkaConfig,
}
