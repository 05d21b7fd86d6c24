"""A member's files read without any code of ours, and how near its numbers can be to those recomputed from them."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.evaluation.definitions import Metrics, PlainSae

NEAR = 1e-5
"""Margin, relative to the inputs of the comparison, within which float32 may decide otherwise than float64."""


def read_sae(folder: Path) -> PlainSae:
    config = json.loads((folder / "cfg.json").read_text())
    tensors = {name: tensor.double() for name, tensor in load_file(folder / "sae_weights.safetensors").items()}
    return PlainSae(config["architecture"], tensors, config["apply_b_dec_to_input"], config.get("k"))


def margins(sae: PlainSae, x_ND: Tensor) -> Tensor:
    """[N, F]: how far each latent is from firing or not (topk: from the last place among the k)."""
    t = sae.tensors
    z = (x_ND - t["b_dec"] if sae.subtract_b_dec else x_ND) @ t["W_enc"]
    if sae.architecture == "gated":
        return torch.minimum((z + t["b_gate"]).abs(), (z * t["r_mag"].exp() + t["b_mag"]).abs())
    pre = z + t["b_enc"]
    if sae.architecture == "jumprelu":
        return (pre - t["threshold"].clamp_min(0)).abs()
    if sae.k is None:
        return pre.abs()
    ordered = pre.sort(dim=1, descending=True).values
    middle = (ordered[:, sae.k - 1] + ordered[:, sae.k]) / 2
    return (pre - middle[:, None]).abs()


def magnitude(key: str, value: float, metrics: Metrics) -> float:
    """What a relative error is relative to: a difference is as exact as what is subtracted, and so are its ratios."""
    if not key.startswith(("ce_delta", "ce_recovered")):
        return abs(value)
    clean, ablated = metrics["ce_clean"], metrics["ce_mean" if key.endswith("mean") else "ce_zero"]
    assert clean is not None
    assert ablated is not None
    return clean if key == "ce_delta" else (1 + abs(value)) * clean / abs(ablated - clean)
