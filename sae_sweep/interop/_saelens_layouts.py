"""What SAELens wrote before 6.0, and in training, made into the layout of a finished SAE of today.

before 6.0     no `sae_lens_version`, or one below 6: the architecture may be missing or called an activation
training       `topk_threshold` or `log_threshold` among the tensors; activation_scaler.json where the inputs are
               scaled and the weights are not folded yet
decoder norms  `rescale_acts_by_decoder_norm`: latents compete after they are multiplied by their rows' norms
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweep.folder.names import CARD, WEIGHTS
from sae_sweep.interop._checked import check_keys, read_json

SCALER = "activation_scaler.json"
TRAINED_AS = {"batchtopk": "jumprelu", "matryoshka_batchtopk": "jumprelu"}
"""What an architecture of training is at inference."""
SCALED = "expected_average_only_in"


def inference_layout(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and tensors that SAELens would save for inference. Raises ValueError for what has none such."""
    file, config, tensors = folder / CARD, dict(config), dict(tensors)
    if _is_legacy(config):
        config, tensors = _modern(file, config), _finetuned(folder, config, tensors)
    if "log_threshold" in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").float().exp()
    if config.get("rescale_acts_by_decoder_norm") and "W_dec" in tensors:
        _fold_norms(tensors)
    if config.get("architecture") in TRAINED_AS:
        config["architecture"] = TRAINED_AS[config["architecture"]]
        if "threshold" not in tensors:
            check_keys(folder / WEIGHTS, tensors, ("topk_threshold", "b_enc"))
            tensors["threshold"] = tensors.pop("topk_threshold").float().expand_as(tensors["b_enc"])
    scale = _input_scale(folder, config)
    if scale != 1:
        for name, factor in (("W_enc", scale), ("W_dec", 1 / scale), ("b_dec", 1 / scale)):
            check_keys(folder / WEIGHTS, tensors, (name,))
            tensors[name] = tensors[name].float() * factor
    return config, tensors


def _is_legacy(config: Mapping[str, Any]) -> bool:
    metadata = config.get("metadata")
    version = config.get("sae_lens_version") or (metadata if isinstance(metadata, dict) else {}).get("sae_lens_version")
    major = str(version or "0").partition(".")[0]
    return not major.isdecimal() or int(major) < 6


def _modern(file: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The config of a folder from before 6.0."""
    check_keys(file, config, ("d_in", "d_sae"))
    made = {"architecture": "standard", "apply_b_dec_to_input": True, **config}
    activation = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    if activation == "topk":
        kwargs = config.get("activation_fn_kwargs")
        return made | {"architecture": "topk", "k": (kwargs if isinstance(kwargs, dict) else {}).get("k")}
    if activation != "relu":
        raise ValueError(f"{file}: activation {activation} is neither relu nor topk")
    return made


def _finetuned(folder: Path, config: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the scale of each latent that finetuning found in its decoder row."""
    scale_F = tensors.pop("scaling_factor", None)
    if scale_F is None or bool((scale_F == 1).all()):
        return tensors
    if not config.get("finetuning_scaling_factor") or "W_dec" not in tensors:
        raise ValueError(f"{folder / WEIGHTS} has a scaling_factor that {CARD} does not say is of finetuning")
    return tensors | {"W_dec": tensors["W_dec"] * scale_F[:, None]}


def _fold_norms(tensors: dict[str, Tensor]) -> None:
    """Latents that compete as they are: codes are multiplied, and decoder rows divided, by the rows' norms."""
    norms_F = tensors["W_dec"].float().norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    for name, factor in (("W_enc", norms_F), ("b_enc", norms_F), ("W_dec", 1 / norms_F[:, None])):
        if name in tensors and tensors[name].shape[-1 if name != "W_dec" else 0] == len(norms_F):
            tensors[name] = tensors[name].float() * factor


def _input_scale(folder: Path, config: Mapping[str, Any]) -> float:
    """What raw activations have to be multiplied by for these tensors."""
    normalised = config.get("normalize_activations") or "none"
    scaler = read_json(folder / SCALER) if (folder / SCALER).is_file() else {}
    if scaler.get("has_whitening"):
        raise ValueError(f"{folder / SCALER}: whitened activations are not supported; export it with the whitening in")
    if normalised == "none":
        return 1.0
    if normalised != SCALED:
        raise ValueError(
            f"{folder / CARD}: normalize_activations={normalised} changes each token, and is not supported"
        )
    factor = scaler.get("scaling_factor")
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor < float("inf"):
        raise ValueError(
            f"{folder / CARD}: normalize_activations={SCALED} is not folded into the weights, and {SCALER}, which says"
            " the scaling_factor, is missing or says none"
        )
    return float(factor)
