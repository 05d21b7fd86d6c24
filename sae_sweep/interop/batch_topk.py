"""SAEs of bartbussmann/BatchTopK and matryoshka_sae: `sae.pt` beside `config.json`, whose values may all be strings.

    W_enc [D, F]  W_dec [F, D]  b_enc [F]  b_dec [D]  threshold  jumprelu.log_threshold [F]

Their TopK kinds read no b_enc where the config has no `use_encoder_bias`. BatchTopK has no threshold of its own: it
cuts each batch anew, so one is asked for. Matryoshka keeps the one that training found.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweep.interop._checked import check_keys, checked_sae, read_json, read_torch, tensors_alone
from sae_sweep.interop._given import Given
from sae_sweep.interop._names import to_ours
from sae_sweep.saes.form import InferenceForm
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.forms.topk import TopKForm
from sae_sweep.saes.inference import InferenceSae

ASKS = ("threshold",)
WEIGHTS, CONFIG = "sae.pt", "config.json"
NAMES = {name: name for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
CUT, LEARNED = "threshold", "jumprelu.log_threshold"
Form = Callable[[Path, Mapping[str, Any]], InferenceForm]


def _k(file: Path, config: Mapping[str, Any]) -> InferenceForm:
    text = str(config.get("top_k"))
    if not text.isdecimal():
        raise ValueError(f"{file}: top_k is {text[:40]!r}, not a whole number above 0")
    return TopKForm(int(text))


KINDS: Mapping[str, Form] = {
    "vanilla": lambda file, config: ReluForm(),
    "jumprelu": lambda file, config: JumpReluForm(),
    "topk": _k,
    "batchtopk": lambda file, config: JumpReluForm(),
    "batch-topk": lambda file, config: JumpReluForm(),
    "global-matryoshka-topk": lambda file, config: JumpReluForm(),
}
"""By `sae_type`."""
BIASED = ("vanilla", "jumprelu")
"""Those that read b_enc in any case."""
LEARNS = ("vanilla", "jumprelu", "topk")
"""Those that no threshold can be given for."""


def recognise(folder: Path) -> bool:
    """Whether a folder holds one of theirs: other programs have a sae.pt alone."""
    return (folder / WEIGHTS).is_file() and (folder / CONFIG).is_file()


def read(folder: Path, given: Given) -> InferenceSae:
    """The SAE as it is used on one token. Raises ValueError for inputs that each token normalises, activations that we
    have not, and BatchTopK without a threshold."""
    file, weights = folder / CONFIG, folder / WEIGHTS
    config = read_json(file, ("sae_type",))
    kind = str(config["sae_type"])
    if kind not in KINDS:
        raise ValueError(f"{file}: sae_type {kind} is not one of {', '.join(KINDS)}")
    if _true(config.get("input_unit_norm")):
        raise ValueError(f"{file}: input_unit_norm changes each token, and is not supported")
    if (activation := str(config.get("activation", "relu"))) != "relu":
        raise ValueError(f"{file}: activation {activation} is not relu, the one that is read")
    if kind in LEARNS:
        given.unneeded(weights, "threshold")
    found = tensors_alone(weights, read_torch(weights))
    thresholds = {name: found.pop(name) for name in (CUT, LEARNED) if name in found}
    form, tensors = KINDS[kind](file, config), to_ours(weights, found, NAMES, kind)
    if _true(config.get("tied_weights")) and tensors["W_enc"].dim() == 2:
        tensors["W_dec"] = tensors["W_enc"].T
    if kind not in BIASED and not _true(config.get("use_encoder_bias")) and bool(tensors["b_enc"].any()):
        raise ValueError(f"{weights}: b_enc is not 0, and {kind} reads none without use_encoder_bias")
    if "threshold" in form.vectors:
        tensors["threshold"] = _threshold(weights, kind, thresholds, given).expand_as(tensors["b_enc"])
    return checked_sae(weights, form, tensors, subtract_b_dec=kind != "jumprelu")


def told(folder: Path) -> dict[str, Any]:
    """Model and hook, which the config says."""
    config = read_json(folder / CONFIG)
    named = {"model_name": "model_name", "hook_point": "hook_name", "dataset_path": "dataset_path"}
    found = {own: config[theirs] for theirs, own in named.items() if isinstance(config.get(theirs), str)}
    length = str(config.get("seq_len"))
    return found | ({"context_size": int(length)} if length.isdecimal() else {})


def _threshold(file: Path, kind: str, thresholds: Mapping[str, Tensor], given: Given) -> Tensor:
    """That of every latent, or one for all. Raises ValueError where the file has none and none is given."""
    if kind == "jumprelu":
        check_keys(file, thresholds, (LEARNED,))
        return thresholds[LEARNED].float().exp()
    if CUT in thresholds and given.threshold is None:
        return thresholds[CUT].float()
    return torch.tensor(float(given.needed(file, "threshold", "above which threshold latents fire")))


def _true(value: Any) -> bool:
    return str(value) in ("True", "true", "1")
