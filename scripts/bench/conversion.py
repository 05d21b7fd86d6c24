"""What dictionary_learning saves, as an SAE that our evaluation can judge."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from sae_sweep.saes.form import InferenceForm
from sae_sweep.saes.forms.gated import GatedForm
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.forms.topk import TopKForm
from sae_sweep.saes.inference import InferenceSae

FORMS: dict[str, type[InferenceForm]] = {
    "AutoEncoder": ReluForm,
    "GatedAutoEncoder": GatedForm,
    "AutoEncoderTopK": TopKForm,
    "BatchTopKSAE": JumpReluForm,
    "JumpReluAutoEncoder": JumpReluForm,
}
"""By its `dict_class`; batchtopk is used with the threshold that it learnt."""
BIASES = {"b_enc", "b_dec", "b_gate", "b_mag", "threshold"}


def from_dictionary_learning(dict_class: str, state: Mapping[str, Tensor], scale: float) -> InferenceSae:
    """`state` is its `ae.pt`, trained on inputs that were multiplied by `scale`; what is returned takes raw ones.

    Its linear layers hold W_enc as [F, D] and W_dec as [D, F]; JumpReLU alone has parameters in our layout, and alone
    does not subtract b_dec from its input.
    """
    layers = dict_class != "JumpReluAutoEncoder"
    if layers:
        tensors = {"W_enc": state["encoder.weight"].T, "W_dec": state["decoder.weight"].T}
    else:
        tensors = {name: state[name] for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}
    match dict_class:
        case "AutoEncoder":
            tensors |= {"b_enc": state["encoder.bias"], "b_dec": state["bias"]}
        case "GatedAutoEncoder":
            tensors |= {"b_gate": state["gate_bias"], "b_mag": state["mag_bias"], "b_dec": state["decoder_bias"]}
            tensors["r_mag"] = state["r_mag"]
        case "AutoEncoderTopK" | "BatchTopKSAE":
            tensors |= {"b_enc": state["encoder.bias"], "b_dec": state["b_dec"]}
    if dict_class == "BatchTopKSAE":  # before its first update the threshold is -1: what is above 0 fires
        tensors["threshold"] = state["threshold"].clamp(min=0).expand(len(tensors["b_enc"]))
    raw = {name: (t / scale if name in BIASES else t).float().contiguous() for name, t in tensors.items()}
    own = {field.name: int(state[field.name]) for field in fields(FORMS[dict_class])}
    return InferenceSae(FORMS[dict_class](**own), raw, subtract_b_dec=layers)


def load_dictionary_learning(folder: Path, dict_class: str, scale: float) -> InferenceSae:
    """From the folder of one of its trainers."""
    return from_dictionary_learning(dict_class, torch.load(folder / "ae.pt", weights_only=True), scale)
