"""Saved members in SAELens's layout: `cfg.json`, `sae_weights.safetensors`, `sparsity.safetensors`.

Scaling is folded in, so a folder loads with `SAE.load_from_disk(folder)` and works on raw activations. Unknown keys
of cfg.json are ignored by its loader, unknown tensors are fatal, and without a 6.x `sae_lens_version` it takes the
folder for a legacy one; hence the exact set of names below.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_sweep.runs import replacing, write_json_atomic
from sae_sweep.saes.inference import InferenceSae

FORMAT_VERSION = "6.54.12"
"""The sae-lens release whose inference layout this is."""
WEIGHTS, CONFIG, SPARSITY = "sae_weights.safetensors", "cfg.json", "sparsity.safetensors"
TENSORS = {
    "standard": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "topk": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "jumprelu": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "gated": ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
}


def save_sae(folder: Path, sae: InferenceSae, metadata: dict[str, Any], frequency_F: Tensor) -> None:
    """Write one member; each file appears whole or not at all, weights last.

    `frequency_F` is the share of tokens each latent fires on; SAELens keeps log10(frequency + 1e-10).
    """
    sparsity_F = torch.log10(frequency_F.double() + 1e-10).float().cpu().contiguous()
    tensors = {name: sae.tensors[name].float().cpu().contiguous() for name in TENSORS[sae.architecture]}
    write_json_atomic(folder / CONFIG, saelens_config(sae, metadata))
    for name, contents in ((SPARSITY, {"sparsity": sparsity_F}), (WEIGHTS, tensors)):
        with replacing(folder / name) as temporary:
            save_file(contents, temporary)


def saelens_config(sae: InferenceSae, metadata: dict[str, Any]) -> dict[str, Any]:
    """The contents of cfg.json."""
    config: dict[str, Any] = {
        "architecture": sae.architecture,
        "d_in": sae.d,
        "d_sae": sae.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if metadata.get("hook_name", "").endswith("hook_z") else "none",
        "metadata": {**metadata, "sae_lens_version": FORMAT_VERSION},
    }
    if sae.architecture == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    return config


def load_sae(folder: Path) -> InferenceSae:
    """Read back what `save_sae` wrote. Raises ValueError when a file is damaged or is not what it should be."""
    config = _read_config(folder / CONFIG)
    architecture, d, width = config["architecture"], config["d_in"], config["d_sae"]
    file = folder / WEIGHTS
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if architecture not in TENSORS or set(tensors) != set(TENSORS[architecture]):
        raise ValueError(f"{file} holds {', '.join(sorted(tensors))}: not the tensors of {architecture}")
    shapes = {"W_enc": (d, width), "W_dec": (width, d), "b_dec": (d,)}
    for name, tensor in tensors.items():
        shape = shapes.get(name, (width,))
        if tensor.shape != shape:
            raise ValueError(f"{file}: {name} is {tuple(tensor.shape)}, not {shape} as {CONFIG} says")
    return InferenceSae(architecture, tensors, config["apply_b_dec_to_input"], config.get("k"))


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no object")
    needed = ["architecture", "d_in", "d_sae", "apply_b_dec_to_input"]
    if config.get("architecture") == "topk":
        needed.append("k")
    for key in needed:
        if key not in config:
            raise ValueError(f"{file} has no {key}")
    return config
