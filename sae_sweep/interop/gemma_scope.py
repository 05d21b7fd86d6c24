"""Gemma Scope: JumpReLU SAEs and transcoders that subtract no b_dec, with no config beside them.

params.npz          the first release: W_enc [D, F], W_dec [F, D], b_enc, b_dec, threshold
params.safetensors  the second: the same in small letters; affine_skip_connection [D, D] where there is a skip
"""

from pathlib import Path

from sae_sweep.interop._checked import checked_sae, read_json, read_npz, read_safetensors
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.inference import InferenceSae

FIRST, SECOND, CONFIG = "params.npz", "params.safetensors", "config.json"
SKIP = "affine_skip_connection"


def recognise(folder: Path) -> bool:
    """Whether a folder holds one of theirs."""
    return any((folder / name).is_file() for name in (FIRST, SECOND))


def read(folder: Path) -> InferenceSae:
    """The SAE, or where its config says that it writes elsewhere, or it has a skip, the transcoder. Raises ValueError
    for files that are not theirs."""
    first = (folder / FIRST).is_file()
    file = folder / (FIRST if first else SECOND)
    found = (read_npz if first else read_safetensors)(file)
    names = {"w_enc": "W_enc", "w_dec": "W_dec"}
    tensors = {names.get(name.lower(), name): tensor for name, tensor in found.items()}
    if SKIP in tensors:
        tensors["W_skip"] = tensors.pop(SKIP).T
    config = read_json(folder / CONFIG) if not first and (folder / CONFIG).is_file() else {}
    hooks = [config.get(f"hf_hook_point_{way}") for way in ("in", "out")]
    transcodes = "W_skip" in tensors or hooks[0] != hooks[1]
    return checked_sae(file, JumpReluForm(), tensors, subtract_b_dec=False, transcodes=transcodes)
