"""Dictionaries of `dictionary_learning`: `ae.pt` beside `config.json`, whose `dict_class` says what the tensors are.

Its trainers scale biases back when they save, so a finished file is for raw activations.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweep.folder.files import replacing, write_json_atomic
from sae_sweep.interop._checked import check_keys, checked_sae, integer, read_json, read_torch, tensors_alone
from sae_sweep.interop._names import to_ours, to_theirs
from sae_sweep.model.sites import parse_hook
from sae_sweep.saes.form import InferenceForm
from sae_sweep.saes.forms.gated import GatedForm
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.forms.topk import TopKForm
from sae_sweep.saes.inference import InferenceSae

WEIGHTS, CONFIG = "ae.pt", "config.json"
_RESIDUAL = re.compile(r"resid_post_layer_(\d+)")


@dataclass(frozen=True)
class Class:
    """One class of theirs: its tensors by our names, the form that it is, whether it subtracts b_dec."""

    tensors: Mapping[str, str]
    form: Callable[[Path, Mapping[str, Any]], InferenceForm]
    subtracts: bool
    buffers: tuple[str, ...] = ()
    """What is saved beside tensors; a `threshold` among them is one for all latents where the form has thresholds."""


_LINEAR = {"encoder.weight.T": "W_enc", "decoder.weight.T": "W_dec"}
_PLAIN = {**_LINEAR, "encoder.bias": "b_enc"}
_OURS = {name: name for name in ("W_enc", "W_dec", "b_enc", "b_dec")}


def _relu(file: Path, found: Mapping[str, Any]) -> InferenceForm:
    return ReluForm()


def _jumprelu(file: Path, found: Mapping[str, Any]) -> InferenceForm:
    return JumpReluForm()


def _gated(file: Path, found: Mapping[str, Any]) -> InferenceForm:
    return GatedForm()


def _topk(file: Path, found: Mapping[str, Any]) -> InferenceForm:
    return TopKForm(integer(file, found, "k"))


CLASSES = {
    "AutoEncoder": Class({**_PLAIN, "bias": "b_dec"}, _relu, True),
    "AutoEncoderNew": Class({**_PLAIN, "decoder.bias": "b_dec"}, _relu, False),
    "GatedAutoEncoder": Class(
        {**_LINEAR, "decoder_bias": "b_dec", "gate_bias": "b_gate", "mag_bias": "b_mag", "r_mag": "r_mag"}, _gated, True
    ),
    "AutoEncoderTopK": Class({**_PLAIN, "b_dec": "b_dec"}, _topk, True, ("k", "threshold")),
    "BatchTopKSAE": Class({**_PLAIN, "b_dec": "b_dec"}, _jumprelu, True, ("k", "threshold")),
    "JumpReluAutoEncoder": Class({**_OURS, "threshold": "threshold"}, _jumprelu, False),
    "MatryoshkaBatchTopKSAE": Class(_OURS, _jumprelu, True, ("k", "threshold", "group_sizes")),
}
WRITTEN: Mapping[type[InferenceForm], str] = {
    ReluForm: "AutoEncoder",
    GatedForm: "GatedAutoEncoder",
    TopKForm: "AutoEncoderTopK",
    JumpReluForm: "JumpReluAutoEncoder",
}
"""The class that each form is written as."""


def recognise(folder: Path) -> bool:
    """Whether a folder holds a dictionary."""
    return (folder / WEIGHTS).is_file()


def read(folder: Path) -> InferenceSae:
    """The dictionary as it is used: BatchTopK and Matryoshka with the threshold that training found. Raises ValueError
    for a class that there is not, and a file that is not what its class has."""
    file, config = folder / WEIGHTS, read_json(folder / CONFIG, ("trainer",))
    trainer = config["trainer"]
    named = trainer.get("dict_class") if isinstance(trainer, dict) else None
    if named not in CLASSES:
        raise ValueError(f"{folder / CONFIG}: dict_class {named} is not one of {', '.join(CLASSES)}")
    found, kind = read_torch(file), CLASSES[named]
    if "ae" in found:
        raise ValueError(f"{file} is a backup that training left, not a finished dictionary: its scale is not folded")
    buffers = {name: found.pop(name) for name in kind.buffers if name in found}
    tensors = to_ours(file, tensors_alone(file, found), kind.tensors, named)
    form = kind.form(file, {"k": trainer.get("k"), **buffers})
    if "threshold" in form.vectors and "threshold" not in tensors:
        check_keys(file, buffers, ("threshold",))
        tensors["threshold"] = torch.as_tensor(buffers["threshold"]).float().expand_as(tensors["b_enc"])
    return checked_sae(file, form, tensors, subtract_b_dec=kind.subtracts)


def told(folder: Path) -> dict[str, Any]:
    """The model, and where the submodule is named by a hook, or as their demos name the residual stream, the hook."""
    trainer = read_json(folder / CONFIG).get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    found = {"model_name": trainer.get("lm_name"), "hook_name": trainer.get("submodule_name")}
    if isinstance(found["hook_name"], str):
        match = _RESIDUAL.fullmatch(found["hook_name"])
        found["hook_name"] = f"blocks.{match[1]}.hook_resid_post" if match else found["hook_name"]
        if parse_hook(found["hook_name"]).layer is None:
            del found["hook_name"]
    return {name: value for name, value in found.items() if isinstance(value, str)}


def write(
    folder: Path, sae: InferenceSae, metadata: Mapping[str, Any], frequency_F: Tensor | None, dtype: torch.dtype
) -> None:
    """Write the dictionary that gives the same codes and reconstructions. Raises ValueError for what they have no class
    of."""
    named = WRITTEN.get(type(sae.form))
    if named is None or sae.transcodes or sae.sites > 1 or sae.lookup is not None or "W_skip" in sae.tensors:
        raise ValueError("dictionary_learning has no class for transcoders, crosscoders and SAEs with a lookup table")
    kind = CLASSES[named]
    sae = sae.subtracting() if kind.subtracts else sae.plain()
    tensors = to_theirs(sae.tensors, kind.tensors, dtype)
    trainer = {"dict_class": named, "trainer_class": "sae-sweep", "activation_dim": sae.d, "dict_size": sae.width}
    trainer |= {"lm_name": metadata.get("model_name"), "submodule_name": metadata.get("hook_name"), "device": "cpu"}
    if isinstance(sae.form, TopKForm):
        tensors |= {"k": torch.tensor(sae.form.k), "threshold": torch.tensor(-1.0)}
        trainer["k"] = sae.form.k
    buffer = {"d_submodule": sae.d, "ctx_len": metadata.get("context_size")}
    write_json_atomic(folder / CONFIG, {"trainer": trainer, "buffer": buffer})
    with replacing(folder / WEIGHTS) as temporary:
        torch.save(tensors, temporary)
