"""Tensors of files that another program wrote: read without running code of theirs, checked before they are used.

Whatever is wrong with a file is a ValueError of one line that names it.
"""

import io
import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sae_sweep.errors import first_line
from sae_sweep.saes.form import InferenceForm
from sae_sweep.saes.inference import InferenceSae, Lookup

TURNED = 0.1
"""Cosine of encoder and decoder that a square matrix has to gain by being transposed, to be taken for a transposed one:
those of unrelated latents are near 0, those of trained ones well above it."""


def read_json(file: Path, needed: Iterable[str] = ()) -> dict[str, Any]:
    """The object in a JSON file, which has these keys; null for numbers that strict JSON has no words for."""
    _present(file)
    try:
        config = json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda word: None)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file} holds no object")
    check_keys(file, config, needed)
    return config


def check_keys(file: Path, config: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Raises ValueError for a key that is not there."""
    for key in needed:
        if key not in config:
            raise ValueError(f"{file} has no {key}")


def integer(file: Path, config: Mapping[str, Any], key: str) -> int:
    """A whole number above 0 at a key. Raises ValueError where it is none."""
    value = config.get(key)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{file}: {key} is {str(value)[:40]!r}, not a whole number above 0")
    return value


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Every tensor by name."""
    _present(file)
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged: {first_line(error)}") from error


def read_torch(file: Path, after: int = 0, *, mapped: bool = False) -> dict[str, Any]:
    """What `torch.save` wrote of a state dict, behind so many bytes: tensors and plain values, no code. `mapped` leaves
    tensors on the disk until they are used."""
    _present(file)
    try:
        with warnings.catch_warnings(), file.open("rb") as stream:
            warnings.simplefilter("ignore")  # of pickles that are refused in the next line
            stream.seek(after)
            source = file if not after else io.BytesIO(stream.read())
            found = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped or None)
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"{file} is damaged, or holds more than plain tensors: {first_line(error)}") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{file} holds no tensors by name")
    return found


def read_npz(file: Path) -> dict[str, Tensor]:
    """Every array by name."""
    _present(file)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except Exception as error:  # a damaged archive may raise anything, a .npy file has no names
        raise ValueError(f"{file} is damaged, or holds more than plain arrays: {first_line(error)}") from error


def tensors_alone(file: Path, found: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same, where all of it is tensors."""
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{file}: {name} is a {type(value).__name__}, not a tensor")
    return dict(found)


def checked_sae(
    file: Path,
    form: InferenceForm,
    tensors: Mapping[str, Tensor],
    *,
    subtract_b_dec: bool,
    transcodes: bool = False,
    sites: int = 1,
    lookup: Lookup | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> InferenceSae:
    """The SAE of these tensors, in float32. Shapes are those of its biases where none are given. Raises ValueError for
    a tensor that is missing, left over, of another shape or transposed, and for numbers that are none."""
    shapes = shapes or _shapes(file, form, tensors)
    for name in sorted(set(tensors) ^ set(shapes)):
        raise ValueError(f"{file} has {'no' if name in shapes else 'a'} tensor {name}: not those of {form.saelens}")
    made = {name: checked(file, name, tensor, shapes[name]) for name, tensor in tensors.items()}
    if not transcodes and len(set(made["W_enc"].shape)) == 1:
        _check_upright(file, made["W_enc"], made["W_dec"])
    return InferenceSae(form, made, subtract_b_dec, lookup, transcodes, sites)


def checked(file: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor in float32. Raises ValueError where it is of another shape, or holds what is no number."""
    if tensor.shape != shape:
        turned = ": it is transposed" if tuple(reversed(tensor.shape)) == shape else ""
        raise ValueError(f"{file}: {name} is {tuple(tensor.shape)}, not {shape}{turned}")
    if not tensor.is_floating_point():
        raise ValueError(f"{file}: {name} is of {tensor.dtype}, not of floating-point numbers")
    made = tensor.float().contiguous()
    if not made.isfinite().all():
        raise ValueError(f"{file}: {name} ({tensor.dtype}) has numbers that are not finite")
    return made


def _shapes(file: Path, form: InferenceForm, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Those that its vectors say."""
    for name in ("W_enc", "b_dec", *form.vectors):
        if name not in tensors:
            raise ValueError(f"{file} has no tensor {name}: not those of {form.saelens}")
        if name != "W_enc" and tensors[name].dim() != 1:
            raise ValueError(f"{file}: {name} is {tuple(tensors[name].shape)}, not a vector")
    width, d_out = len(tensors[form.vectors[0]]), len(tensors["b_dec"])
    skip = "W_skip" in tensors
    matrix = tensors["W_skip"].T if skip else tensors["W_enc"]
    d = matrix.shape[0] if matrix.dim() == 2 and (skip or matrix.shape[1] == width != d_out) else d_out
    return form.shapes(d, width, d_out) | ({"W_skip": (d_out, d)} if skip else {})


def _check_upright(file: Path, W_enc: Tensor, W_dec: Tensor) -> None:
    """A latent reads about what it writes. Raises ValueError where the encoder does that once it is transposed only."""
    own, turned = (torch.cosine_similarity(W, W_dec, dim=1).mean().item() for W in (W_enc.T, W_enc))
    if turned - own > TURNED:
        raise ValueError(
            f"{file}: W_enc is transposed, or W_dec is: the mean cosine of encoder and decoder is {own:.2f}, and"
            f" {turned:.2f} the other way"
        )


def _present(file: Path) -> None:
    if not file.is_file():
        raise ValueError(f"{file} is missing")
