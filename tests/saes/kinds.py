"""Every kind of SAE there is a test problem of, and the configs of three members of it."""

from typing import Any

from sae_sweep.architectures.base import ARCHITECTURES, SaeConfig

KINDS = (
    *("bricken", "april", "gated", "topk"),
    *("gated_decoder_norm", "p_anneal", "batchtopk", "matryoshka"),
    *("jumprelu", "jumprelu_target_l0", "jumprelu_frequency", "jumprelu_anthropic"),
    *("hierarchical_topk", "ortsae", "jumprelu_gemma_scope_2"),
)
TOPK_KINDS = ("topk", "batchtopk", "matryoshka", "hierarchical_topk", "ortsae")
BATCH_KINDS = ("batchtopk", "matryoshka", "ortsae")
"""Of which a threshold is left at inference."""
FREE_DECODER = ("april", "gated_decoder_norm", "jumprelu_anthropic")
NO_PRE_BIAS = ("april", "jumprelu_anthropic")

COMMON: dict[str, Any] = {
    "expansion": None,
    "width": 1,
    "l0": None,
    "input_scale": "none",
    "centre": False,
    "decoder_init": "random",
    "encoder_init": "transpose",
    "b_dec_init": "mean",
    "lookup": "none",
    "lookup_scale": 0.5,
    "lookup_lr": 1e-2,
    "lookup_subtract": False,
    "skip": False,
}
L1: dict[str, Any] = {"l1": 1.0, "coefficient_unit": "sum", "resample": True}
AUXK: dict[str, Any] = {"k": 4, "auxk": 3, "auxk_coefficient": 1 / 32, "dead_after_tokens": 1e7}
JUMPRELU: dict[str, Any] = {
    "l0_coefficient": 1.0,
    "coefficient_unit": "sum",
    "resample": True,
    "penalty": "l0",
    "variant": "deepmind",
    "free_decoder": False,
    "threshold_init": 0.1,
    "bandwidth": 0.9,
    "frequency_scale": 0.1,
    "tanh_scale": 4.0,
    "preactivation_coefficient": 0.0,
}
KEYS: dict[str, dict[str, Any]] = {
    "bricken": {"architecture": "standard", **L1, "variant": "bricken", "encoder_init": "scaled_transpose"},
    "april": {"architecture": "standard", **L1, "variant": "april", "b_dec_init": "zero"},
    "gated": {"architecture": "gated", **L1, "variant": "unit_norm", "encoder_init": "scaled_transpose"},
    "topk": {"architecture": "topk", **AUXK},
    "gated_decoder_norm": {"architecture": "gated", **L1, "variant": "decoder_norm"},
    "p_anneal": {"architecture": "p_anneal", **L1, "p_end": 0.2, "anneal_after_steps": 0},
    "batchtopk": {"architecture": "batchtopk", **AUXK},
    "matryoshka": {"architecture": "matryoshka", **AUXK, "groups": 3, "prefixes": "fixed"},
    "jumprelu": {"architecture": "jumprelu", **JUMPRELU},
    "jumprelu_target_l0": {"architecture": "jumprelu", **JUMPRELU, "penalty": "target_l0", "l0": 4.0},
    "jumprelu_frequency": {"architecture": "jumprelu", **JUMPRELU, "penalty": "frequency"},
    "jumprelu_anthropic": {"architecture": "jumprelu", **JUMPRELU, "penalty": "tanh", "variant": "anthropic"},
    "hierarchical_topk": {"architecture": "hierarchical_topk", **AUXK, "budgets": "powers"},
    "ortsae": {"architecture": "ortsae", **AUXK, "orthogonality": 0.3, "orthogonality_chunk": 8},
    "jumprelu_gemma_scope_2": {
        "architecture": "jumprelu",
        **JUMPRELU,
        "penalty": "quadratic_frequency",
        "l0": 4.0,
        "groups": 3,
    },
}
OWN: dict[str, tuple[dict[str, Any], ...]] = {
    "matryoshka": ({"groups": 3}, {"groups": 1}, {"groups": 4}),
    "jumprelu": ({"bandwidth": 1.2}, {"bandwidth": 0.5}, {"bandwidth": 0.9}),
    "jumprelu_target_l0": ({"bandwidth": 1.2, "l0": 2.0}, {"l0": 7.5}, {"l0": 4.0}),
    "jumprelu_frequency": (
        {"bandwidth": 1.2, "frequency_scale": 0.1},
        {"frequency_scale": 0.5},
        {"frequency_scale": 3.0},
    ),
    "jumprelu_anthropic": (
        {"bandwidth": 1.2, "preactivation_coefficient": 0.2, "tanh_scale": 0.3},
        {"bandwidth": 0.5, "preactivation_coefficient": 0.0, "tanh_scale": 4.0},
        {"bandwidth": 0.9, "preactivation_coefficient": 3e-3, "tanh_scale": 1.0},
    ),
    "hierarchical_topk": ({"budgets": "powers"}, {"budgets": "all"}, {"budgets": "powers"}),
    "ortsae": (
        {"orthogonality": 0.3, "orthogonality_chunk": 7},
        {"orthogonality": 0.0},
        {"orthogonality": 1.5, "orthogonality_chunk": 99},
    ),
    "jumprelu_gemma_scope_2": (
        {"bandwidth": 1.2, "l0": 2.0, "groups": 3},
        {"l0": 7.5, "groups": 2, "frequency_scale": 0.5},
        {"l0": 4.0, "groups": 4, "frequency_scale": 3.0},
    ),
}
"""What three members of a kind do not have in common."""


def config(kind: str, **keys: Any) -> SaeConfig:
    entries = {**COMMON, **KEYS[kind], **keys}
    return ARCHITECTURES[entries["architecture"]].Config(**entries)


def configs(kind: str, ks: tuple[int, ...], **keys: Any) -> list[SaeConfig]:
    """Three members' configs."""
    own = OWN.get(kind, ({},) * len(ks))
    sizes: list[dict[str, Any]] = [{"k": k} if kind in TOPK_KINDS else {} for k in ks]
    return [config(kind, **{**entries, **size, **keys}) for entries, size in zip(own, sizes, strict=True)]
