"""Gemma Scope: JumpReLU SAEs and transcoders that subtract no b_dec.

params.npz          the first release: W_enc [D, F], W_dec [F, D], b_enc, b_dec, threshold; nothing beside it
params.safetensors  the second: the same in small letters; affine_skip_connection [D, D] where there is a skip
config.json         of the second, where there is one: architecture, model_name, hf_hook_point_in and _out
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_sweep.interop._checked import checked_sae, read_json, read_npz, read_safetensors
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.inference import InferenceSae

FIRST, SECOND, CONFIG = "params.npz", "params.safetensors", "config.json"
NAMES = {"w_enc": "W_enc", "w_dec": "W_dec"}
SKIP = "affine_skip_connection"
ARCHITECTURE = "jump_relu"


def recognise(place: Path) -> bool:
    """Whether it is one of their files, or a folder that holds one."""
    return _file(place) is not None


def read(place: Path) -> InferenceSae:
    """The SAE, or where its config says that it writes elsewhere, or it has a skip, the transcoder. Raises ValueError
    for files that are not theirs, and for those of several layers."""
    file = _file(place)
    if file is None:
        raise ValueError(f"{place} has neither {FIRST} nor {SECOND}")
    found = (read_npz if file.name == FIRST else read_safetensors)(file)
    tensors = {NAMES.get(name.lower(), name): tensor for name, tensor in found.items()}
    if any(tensors[name].dim() > 2 for name in ("W_enc", "W_dec") if name in tensors):
        raise ValueError(f"{file} reads or writes several layers (a cross-layer transcoder, or a crosscoder): not read")
    if SKIP in tensors:
        tensors["W_skip"] = tensors.pop(SKIP).T
    config = _config(file)
    if config.get("affine_connection", "W_skip" in tensors) is not ("W_skip" in tensors):
        have = "has" if "W_skip" in tensors else "has no"
        raise ValueError(
            f"{file.parent / CONFIG}: affine_connection={config['affine_connection']}, and {file} {have} {SKIP}"
        )
    hooks = [config.get(f"hf_hook_point_{way}") for way in ("in", "out")]
    transcodes = "W_skip" in tensors or hooks[0] != hooks[1]
    return checked_sae(file, JumpReluForm(), tensors, subtract_b_dec=False, transcodes=transcodes)


def told(place: Path) -> dict[str, Any]:
    """The model, and the module of transformers that it reads; a hook is not said."""
    file = _file(place)
    config: Mapping[str, Any] = {} if file is None else _config(file)
    found = {"hf_hook_name": config.get("hf_hook_point_in"), "hf_hook_name_out": config.get("hf_hook_point_out")}
    if isinstance(model := config.get("model_name"), str):
        found["model_name"] = f"{'' if '/' in model else 'google/'}{model.replace('-v3', '-3')}"
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _file(place: Path) -> Path | None:
    if place.is_file():
        return place if place.name in (FIRST, SECOND) else None
    return next((place / name for name in (FIRST, SECOND) if (place / name).is_file()), None)


def _config(file: Path) -> dict[str, Any]:
    """What config.json says; nothing where there is none. Raises ValueError for another architecture."""
    if not (file.parent / CONFIG).is_file():
        return {}
    config = read_json(file.parent / CONFIG)
    if (architecture := config.get("architecture", ARCHITECTURE)) != ARCHITECTURE:
        raise ValueError(
            f"{file.parent / CONFIG}: architecture {architecture} is not {ARCHITECTURE}, the one that is read"
        )
    return config
