"""Transcoders of circuit-tracer: a set has a `layer_<L>.safetensors` for each layer, and a `config.yaml`.

    W_enc [F, D]  b_enc [F]  W_dec [F, D]  b_dec [D]  W_skip [D, D]  activation_function.threshold [F]

Without thresholds they are ReLU. One layer is one transcoder here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from sae_sweep.folder.files import replacing, write_text_atomic
from sae_sweep.interop._checked import checked_sae, read_safetensors
from sae_sweep.interop._names import to_ours, to_theirs
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae

CONFIG, LAYER = "config.yaml", "layer_*.safetensors"
TENSORS = {"W_enc.T": "W_enc", "W_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec"}
THRESHOLD, SKIP = {"activation_function.threshold": "threshold"}, {"W_skip": "W_skip"}


def recognise(folder: Path) -> bool:
    """Whether it is a set with one layer, or the file of a layer."""
    return len(_files(folder)) == 1


def read(folder: Path) -> InferenceSae:
    """The transcoder of the one layer. Raises ValueError for another file."""
    file = _files(folder)[0]
    found = read_safetensors(file)
    form = JumpReluForm() if next(iter(THRESHOLD)) in found else ReluForm()
    names = {**TENSORS, **_optional(next(iter(THRESHOLD)) in found, "W_skip" in found)}
    tensors = to_ours(file, found, names, "circuit-tracer")
    return checked_sae(file, form, tensors, subtract_b_dec=False, transcodes=True)


def write(
    folder: Path, sae: InferenceSae, metadata: Mapping[str, Any], frequency_F: Tensor, dtype: torch.dtype
) -> None:
    """Write a set of one layer. Raises ValueError for what is no transcoder, or of a form that they have not."""
    if not sae.transcodes or type(sae.form) not in (ReluForm, JumpReluForm) or sae.lookup is not None:
        raise ValueError("circuit-tracer has transcoders of ReLU or thresholds, without a lookup table")
    layer = next((word for word in str(metadata.get("hook_name", "")).split(".") if word.isdecimal()), "0")
    names = {**TENSORS, **_optional("threshold" in sae.tensors, "W_skip" in sae.tensors)}
    hooks = {way: _short(metadata.get(key)) for way, key in (("input", "hook_name"), ("output", "hook_name_out"))}
    name = f"layer_{layer}.safetensors"
    config = {"model_name": metadata.get("model_name"), "model_kind": "transcoder_set", "transcoders": [name]}
    config |= {f"feature_{way}_hook": hook for way, hook in hooks.items()}
    write_text_atomic(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)))
    with replacing(folder / name) as temporary:
        save_file(to_theirs(sae.plain().tensors, names, dtype), temporary)


def _optional(threshold: bool, skip: bool) -> dict[str, str]:
    return (THRESHOLD if threshold else {}) | (SKIP if skip else {})


def _short(hook: Any) -> str | None:
    """A hook's name without its layer."""
    return ".".join(str(hook).split(".")[2:]) if hook else None


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place] if place.match(LAYER) else []
    return sorted(place.glob(LAYER))
