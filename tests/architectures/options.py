"""Configs of every file of configs/sae, small enough to train in a moment."""

from typing import Any

from sae_sweep.config.command_line import read_value
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig

D, WIDTH = 16, 64
KNOBS: dict[str, dict[str, Any]] = {
    "standard": {"l1": 0.1},
    "standard_april": {"l1": 0.1},
    "p_anneal": {"l1": 0.1},
    "gated": {"l1": 0.1},
    "gated_decoder_norm": {"l1": 0.1},
    "jumprelu": {"l0_coefficient": 0.1},
    "jumprelu_anthropic": {"l0_coefficient": 0.1},
    "topk": {"k": 8},
    "batchtopk": {"k": 8},
    "matryoshka": {"k": 8},
    "hierarchical_topk": {"k": 8},
    "ortsae": {"k": 8},
    "jumprelu_gemma_scope_2": {"l0_coefficient": 0.1},
    "temporal": {"k": 8},
}
"""Each file of configs/sae, and its own key of sparsity."""
SMALL = (
    *("name=walk", "tracking=none", "model.device=cpu", "data=toy", "data.toy.dimensions=16", "data.toy.latents=20"),
    *("data.toy.active=3", "data.context=16", "data.block_rows=16", "sae.width=64", "evaluation.tokens=128"),
    *("training.batch_size=64", "training.tokens=192"),
)


def member(option: str, **entries: Any) -> MemberConfig:
    """The config of a file of configs/sae; entries are `sae` keys."""
    small = {key: read_value(key, value) for key, value in (word.split("=") for word in SMALL)}
    return config_of({"sae": option, **small, **{f"sae.{key}": value for key, value in entries.items()}})


def config(option: str, **entries: Any) -> Any:
    """The `sae` part of it, at the knob's value."""
    return member(option, **{**KNOBS[option.removesuffix("_paper")], **entries}).sae
