"""Every architecture, by the name `sae.architecture` takes. A new one is one line here."""

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.batchtopk import BatchTopKConfig
from sae_sweep.architectures.gated import GatedConfig
from sae_sweep.architectures.jumprelu import JumpReluConfig
from sae_sweep.architectures.matryoshka import MatryoshkaConfig
from sae_sweep.architectures.p_anneal import PAnnealConfig
from sae_sweep.architectures.standard import StandardConfig
from sae_sweep.architectures.topk import TopKConfig

ARCHITECTURES: dict[str, type[SaeConfig]] = {
    "standard": StandardConfig,
    "p_anneal": PAnnealConfig,
    "gated": GatedConfig,
    "jumprelu": JumpReluConfig,
    "topk": TopKConfig,
    "batchtopk": BatchTopKConfig,
    "matryoshka": MatryoshkaConfig,
}
