"""Plain tensors: one `.safetensors`, `.npz` or `.pt` file of an encoder and a decoder under usual names.

Whether b_dec is subtracted before the encoder is asked for, and ReLU or TopK where there are no thresholds or gates.
How matrices lie follows from their shapes; of a square one it is proved by its directions, or asked for.
"""

from pathlib import Path

import torch
from torch import Tensor

from sae_sweep.interop._checked import (
    TURNED,
    checked_sae,
    read_npz,
    read_safetensors,
    read_torch,
    tensors_alone,
)
from sae_sweep.interop._files import names_of, one_file, the_file
from sae_sweep.interop._given import Given, relu_or_topk
from sae_sweep.saes.form import InferenceForm
from sae_sweep.saes.forms.gated import GatedForm
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.inference import InferenceSae

ASKS = ("k", "activation", "subtract_b_dec", "layout")
SUFFIXES = (".safetensors", ".npz", ".pt", ".pth")
NAMES = {
    **dict.fromkeys(("W_enc", "w_enc", "encoder.weight", "encoder_weight"), "W_enc"),
    **dict.fromkeys(("W_dec", "w_dec", "decoder.weight", "decoder_weight"), "W_dec"),
    **dict.fromkeys(("b_enc", "encoder.bias", "encoder_bias"), "b_enc"),
    **dict.fromkeys(("b_dec", "decoder.bias", "decoder_bias", "bias"), "b_dec"),
    **{name: name for name in ("threshold", "log_threshold", *GatedForm.vectors)},
}
UNIT = 1e-3
"""How far norms of a decoder's rows are from 1 at most, for it to be seen by them how it lies."""


def recognise(place: Path) -> bool:
    """Whether it is a file with an encoder and a decoder and nothing that has another name, or a folder with one; a
    damaged one is taken to be, so that it is told what it is."""
    return any(_is_plain(names_of(file)) for file in one_file(place, SUFFIXES))


def read(place: Path, given: Given) -> InferenceSae:
    """The SAE. Raises ValueError for what is asked for and not given, names that are not known, and tensors that do not
    fit each other."""
    file = the_file(place, SUFFIXES)
    tensors = _named(file, _read(file))
    form = _form(file, tensors, given)
    for name in ("W_enc", "W_dec", "b_dec", form.vectors[0]):
        if name not in tensors:
            raise ValueError(f"{file} has no tensor {name}, nor one of another name for it")
    subtract = given.needed(file, "subtract_b_dec", "whether b_dec is subtracted from what the encoder reads")
    lie = _lie(file, tensors, len(tensors[form.vectors[0]].flatten()), given.layout)
    for name, axes, upright in (("W_enc", lie[0], "DF"), ("W_dec", lie[1], "FD")):
        if axes != upright and tensors[name].dim() == 2:
            tensors[name] = tensors[name].T
    return checked_sae(file, form, tensors, subtract_b_dec=subtract)


def _is_plain(names: set[str] | None) -> bool:
    return names is None or (names <= set(NAMES) and {"W_enc", "W_dec"} <= {NAMES[name] for name in names})


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    return read_npz(file) if file.suffix == ".npz" else tensors_alone(file, read_torch(file))


def _named(file: Path, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by our names."""
    made: dict[str, Tensor] = {}
    for name, tensor in found.items():
        own = NAMES.get(name)
        if own is None or own in made:
            raise ValueError(f"{file} has a tensor {name}, which is {'none of an SAE' if own is None else 'one twice'}")
        made[own] = tensor
    if "log_threshold" in made:
        made["threshold"] = made.pop("log_threshold").float().exp()
    return made


def _form(file: Path, tensors: dict[str, Tensor], given: Given) -> InferenceForm:
    if "b_gate" not in tensors and "threshold" not in tensors:
        return relu_or_topk(file, given)
    given.unneeded(file, "k", "activation")
    if "b_gate" in tensors:
        return GatedForm()
    if tensors["threshold"].numel() == 1 and "b_enc" in tensors:
        tensors["threshold"] = tensors["threshold"].flatten().expand(tensors["b_enc"].shape)
    return JumpReluForm()


def _lie(file: Path, tensors: dict[str, Tensor], width: int, layout: str | None) -> tuple[str, str]:
    """The axes of encoder and decoder. Raises ValueError where they are neither given nor to be seen."""
    if layout is not None:
        encoder, decoder = layout.split(",")
        return encoder, decoder
    W_enc, W_dec, d = tensors["W_enc"], tensors["W_dec"], len(tensors["b_dec"].flatten())
    if width != d:
        return "FD" if W_enc.shape == (width, d) else "DF", "DF" if W_dec.shape == (d, width) else "FD"
    if W_enc.shape != (d, d) or W_dec.shape != (d, d):
        return "DF", "FD"  # which `checked_sae` says
    return _by_directions(file, W_enc.float(), W_dec.float())


def _by_directions(file: Path, W_enc: Tensor, W_dec: Tensor) -> tuple[str, str]:
    """Of square matrices: a latent's decoder row has unit norm, and its encoder is about the same direction."""
    rows = {"FD": W_dec, "DF": W_dec.T}
    units = [axes for axes, rows_FD in rows.items() if bool(((rows_FD.norm(dim=1) - 1).abs() < UNIT).all())]
    if len(units) == 1:
        decoder_FD = rows[units[0]]
        cosines = {
            axes: torch.cosine_similarity(encoder_FD, decoder_FD, dim=1).mean().item()
            for axes, encoder_FD in (("FD", W_enc), ("DF", W_enc.T))
        }
        encoder = max(cosines, key=lambda axes: cosines[axes])
        if abs(cosines["FD"] - cosines["DF"]) > TURNED:
            return encoder, units[0]
    raise ValueError(
        f"{file} does not say how its square matrices lie, nor do their directions; give layout= (DF,FD where"
        " x @ W_enc and f @ W_dec)"
    )
