"""Saved members in SAELens's layout: `cfg.json`, `sae_weights.safetensors`, `sparsity.safetensors`.

Scaling is folded in, so a folder loads with `SAE.load_from_disk(folder)` and works on raw activations. Unknown keys
of cfg.json are ignored by its loader, unknown tensors are fatal, and without a 6.x `sae_lens_version` it takes the
folder for a legacy one; hence the exact set of names below.

A crosscoder is of no architecture of SAELens: cfg.json calls it one, says how it fires and how many sites lie end to
end in its inputs, and `load_sae` reads it.

Its transcoders fire as a ReLU or a JumpReLU does. Gated ones are saved as the JumpReLUs that they are; a TopK
transcoder is of no architecture that it has, so only `load_sae` reads it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_sweep.folder.files import replacing, write_json_atomic
from sae_sweep.folder.names import CARD, LOOKUP, SPARSITY, WEIGHTS
from sae_sweep.saes.inference import InferenceSae, Lookup

FORMAT_VERSION = "6.54.12"
"""The sae-lens release whose inference layout this is."""
"""Of a tokenized SAE alone; SAELens loads the folder without it."""
TENSORS = {
    "standard": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "topk": ("W_enc", "b_enc", "W_dec", "b_dec"),
    "jumprelu": ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"),
    "gated": ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag"),
}
TRANSCODERS = {"standard": "transcoder", "jumprelu": "jumprelu_transcoder", "topk": "topk_transcoder"}
"""What a transcoder of each activation is called; with a skip, skip_transcoder ends the name."""

CROSSCODER = "crosscoder"


def save_sae(folder: Path, sae: InferenceSae, metadata: dict[str, Any], frequency_F: Tensor) -> None:
    """Write one member; each file appears whole or not at all, weights last.

    `frequency_F` is the share of tokens each latent fires on; SAELens keeps log10(frequency + 1e-10).
    """
    sparsity_F = torch.log10(frequency_F.double() + 1e-10).float().cpu().contiguous()
    names = TENSORS[sae.architecture] + (("W_skip",) if "W_skip" in sae.tensors else ())
    tensors = {name: sae.tensors[name].float().cpu().contiguous() for name in names}
    write_json_atomic(folder / CARD, saelens_config(sae, metadata))
    files = {SPARSITY: {"sparsity": sparsity_F}, WEIGHTS: tensors}
    if sae.lookup is not None:
        files = {LOOKUP: {"lookup": sae.lookup.rows_VD.float().cpu().contiguous()}, **files}
    for name, contents in files.items():
        with replacing(folder / name) as temporary:
            save_file(contents, temporary)


def saelens_config(sae: InferenceSae, metadata: dict[str, Any]) -> dict[str, Any]:
    """The contents of cfg.json."""
    config: dict[str, Any] = {
        "architecture": _architecture(sae),
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
    if sae.transcodes:
        config["d_out"] = sae.d_out
    if sae.sites > 1:
        config |= {"activation": sae.architecture, "sites": sae.sites}
    if sae.lookup is not None:
        config["lookup"] = {"file": LOOKUP, "rows": len(sae.lookup.rows_VD), "subtract": sae.lookup.subtract}
    return config


def _architecture(sae: InferenceSae) -> str:
    """What cfg.json calls it."""
    if sae.sites > 1:
        return CROSSCODER
    if not sae.transcodes:
        return sae.architecture
    name = TRANSCODERS[sae.architecture]
    return name.replace("transcoder", "skip_transcoder") if "W_skip" in sae.tensors else name


def load_sae(folder: Path) -> InferenceSae:
    """Read back what `save_sae` wrote. Raises ValueError when a file is damaged or is not what it should be."""
    config = _read_config(folder / CARD)
    d, width = config["d_in"], config["d_sae"]
    named = config.get("activation", "") if config["architecture"] == CROSSCODER else config["architecture"]
    plain, transcodes = named.replace("skip_", ""), "transcoder" in named
    architecture = next((own for own, name in TRANSCODERS.items() if name == plain), named)
    names = TENSORS.get(architecture, ()) + (("W_skip",) if plain != named else ())
    tensors = _read_tensors(folder / WEIGHTS, names, named)
    d_out = config.get("d_out", d)
    shapes = {"W_enc": (d, width), "W_dec": (width, d_out), "b_dec": (d_out,), "W_skip": (d_out, d)}
    for name, tensor in tensors.items():
        _check_shape(folder / WEIGHTS, name, tensor, shapes.get(name, (width,)))
    lookup = _lookup(folder, config.get("lookup"), d)
    return InferenceSae(
        architecture,
        tensors,
        config["apply_b_dec_to_input"],
        config.get("k"),
        lookup,
        transcodes,
        config.get("sites", 1),
    )


def _lookup(folder: Path, entry: Any, d: int) -> Lookup | None:
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("rows"), int) or "subtract" not in entry:
        raise ValueError(f"{folder / CARD}: lookup does not say its rows, or whether it is subtracted")
    rows_VD = _read_tensors(folder / LOOKUP, ("lookup",), "a tokenized SAE")["lookup"]
    _check_shape(folder / LOOKUP, "lookup", rows_VD, (entry["rows"], d))
    return Lookup(rows_VD, bool(entry["subtract"]))


def _read_tensors(file: Path, names: Sequence[str], owner: str) -> dict[str, Tensor]:
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if set(tensors) != set(names):
        raise ValueError(f"{file} holds {', '.join(sorted(tensors))}: not the tensors of {owner}")
    return tensors


def _check_shape(file: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise ValueError(f"{file}: {name} is {tuple(tensor.shape)}, not {shape} as {CARD} says")


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no object")
    needed = ["architecture", "d_in", "d_sae", "apply_b_dec_to_input"]
    if config.get("architecture") == CROSSCODER:
        needed += ["activation", "sites"]
    if str(config.get("activation", config.get("architecture"))).startswith("topk"):
        needed.append("k")
    for key in needed:
        if key not in config:
            raise ValueError(f"{file} has no {key}")
    return config
