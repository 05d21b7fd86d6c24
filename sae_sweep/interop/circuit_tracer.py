"""Transcoders of circuit-tracer: a set has a `layer_<L>.safetensors` for each layer, and a `config.yaml`. What its
cross-layer transcoders are in is in `_circuit_tracer_layers.py`.

    W_enc [F, D]  b_enc [F]  W_dec [F, D]  b_dec [D]  W_skip [D, D]  activation_function.threshold [F]
    config.yaml   model_name, model_kind: transcoder_set, feature_input_hook, feature_output_hook, transcoders

Without thresholds they are ReLU. One layer is one transcoder here; a set is imported whole, one after another.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from safetensors.torch import save_file
from torch import Tensor

from sae_sweep.errors import first_line
from sae_sweep.folder.files import replacing, write_text_atomic
from sae_sweep.interop import _circuit_tracer_layers as layers
from sae_sweep.interop._checked import checked_sae, read_safetensors
from sae_sweep.interop._names import to_ours, to_theirs
from sae_sweep.saes.cross_layer import CrossLayerSae
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae

CONFIG, LAYER, KIND = "config.yaml", "layer_*.safetensors", "transcoder_set"
_NAME = re.compile(r"layer_(\d+)\.safetensors")
TENSORS = {"W_enc.T": "W_enc", "W_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec"}
THRESHOLD, SKIP = {"activation_function.threshold": "threshold"}, {"W_skip": "W_skip"}


def recognise(folder: Path) -> bool:
    """Whether it is a set, or the file of a layer, or a cross-layer transcoder."""
    return bool(_files(folder)) or layers.recognise(folder)


def read(folder: Path) -> InferenceSae:
    """The transcoder of the one layer, or of all. Raises ValueError for a set of several, and for another file."""
    if layers.recognise(folder):
        _config(folder, layers.KIND)
        return layers.read(folder)
    files = _files(folder)
    if len(files) != 1:
        what = f"a set of {len(files)} layers" if files else "no layer_<L>.safetensors"
        raise ValueError(f"{folder} has {what}; give the file of one, like {folder / 'layer_0.safetensors'}")
    (file,) = files
    _config(file.parent)
    found = read_safetensors(file)
    form = JumpReluForm() if next(iter(THRESHOLD)) in found else ReluForm()
    names = {**TENSORS, **_optional(next(iter(THRESHOLD)) in found, "W_skip" in found)}
    tensors = to_ours(file, found, names, "circuit-tracer")
    return checked_sae(file, form, tensors, subtract_b_dec=False, transcodes=True)


def members(folder: Path) -> list[Path]:
    """The files of a set, by layer. Raises ValueError where they are not those of all layers from 0 on, or of those
    that its config lists."""
    if layers.recognise(folder):
        return [folder]
    files = sorted(_files(folder), key=_layer)
    listed = _config(folder).get("transcoders") if folder.is_dir() else None
    if isinstance(listed, list):
        there, named = {file.name for file in files}, {str(each).rpartition("/")[2] for each in listed}
        for name in sorted(there ^ named):
            raise ValueError(
                f"{folder / CONFIG} lists {name}, which is not there" if name in named else _left(folder, name)
            )
    elif len(files) > 1 and [_layer(file) for file in files] != list(range(len(files))):
        missing = next(layer for layer in range(len(files)) if layer not in map(_layer, files))
        raise ValueError(f"{folder} has no layer_{missing}.safetensors: a set has every layer from 0 on")
    return files


def told(folder: Path) -> dict[str, Any]:
    """Model and hooks of one layer, which the set's config says."""
    if layers.recognise(folder):
        return layers.told(folder, _config(folder, layers.KIND))
    files = _files(folder)
    if len(files) != 1:
        return {}
    config, layer = _config(files[0].parent), _layer(files[0])
    hooks = {"feature_input_hook": "hook_name", "feature_output_hook": "hook_name_out"}
    found = {own: f"blocks.{layer}.{config[key]}" for key, own in hooks.items() if isinstance(config.get(key), str)}
    return found | ({"model_name": config["model_name"]} if isinstance(config.get("model_name"), str) else {})


def write(
    folder: Path, sae: InferenceSae, metadata: Mapping[str, Any], frequency_F: Tensor | None, dtype: torch.dtype
) -> None:
    """Write a set of one layer, or a cross-layer transcoder. Raises ValueError for what is no transcoder, or of a form
    that they have not."""
    if isinstance(sae, CrossLayerSae):
        layers.write(folder, sae, metadata, dtype)
        return
    if not sae.transcodes or type(sae.form) not in (ReluForm, JumpReluForm) or sae.lookup is not None:
        raise ValueError("circuit-tracer has transcoders of ReLU or thresholds, without a lookup table")
    layer = next((word for word in str(metadata.get("hook_name", "")).split(".") if word.isdecimal()), "0")
    names = {**TENSORS, **_optional("threshold" in sae.tensors, "W_skip" in sae.tensors)}
    hooks = {way: _short(metadata.get(key)) for way, key in (("input", "hook_name"), ("output", "hook_name_out"))}
    name = f"layer_{layer}.safetensors"
    config = {"model_name": metadata.get("model_name"), "model_kind": KIND}
    config |= {f"feature_{way}_hook": hook for way, hook in hooks.items()}
    write_text_atomic(folder / CONFIG, yaml.safe_dump(config, sort_keys=False))
    with replacing(folder / name) as temporary:
        save_file(to_theirs(sae.plain().tensors, names, dtype), temporary)


def _optional(threshold: bool, skip: bool) -> dict[str, str]:
    return (THRESHOLD if threshold else {}) | (SKIP if skip else {})


def _short(hook: Any) -> str | None:
    """A hook's name without its layer."""
    return ".".join(str(hook).split(".")[2:]) if hook else None


def _files(place: Path) -> list[Path]:
    found = [place] if place.is_file() else sorted(place.glob(LAYER))
    return [file for file in found if _NAME.fullmatch(file.name)]


def _layer(file: Path) -> int:
    match = _NAME.fullmatch(file.name)
    assert match is not None
    return int(match[1])


def _left(folder: Path, name: str) -> str:
    return f"{folder} has {name}, which {CONFIG} does not list"


def _config(folder: Path, kind: str = KIND) -> dict[str, Any]:
    """What config.yaml says, nothing where there is none. Raises ValueError for one that is none of a set's."""
    file = folder / CONFIG
    if not file.is_file():
        return {}
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{file} is not valid YAML: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds no mapping")
    if (said := found.get("model_kind", kind)) != kind:
        raise ValueError(f"{file}: model_kind {said} is not {kind}, which its files are of")
    return found
