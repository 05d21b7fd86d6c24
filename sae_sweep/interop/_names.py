"""Tensors under the names that another program has for them, both ways.

A table of names has theirs, then ours; `.T` after one of theirs says that ours is its transpose.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def to_ours(file: Path, found: Mapping[str, Tensor], names: Mapping[str, str], owner: str) -> dict[str, Tensor]:
    """The tensors of a file under our names. Raises ValueError where one is missing or left over."""
    theirs = {name.removesuffix(".T") for name in names}
    for name in sorted(theirs ^ set(found)):
        raise ValueError(f"{file} has {'no' if name in theirs else 'a'} tensor {name}: not those of {owner}")
    made = {}
    for name, own in names.items():
        tensor = found[name.removesuffix(".T")]
        if name.endswith(".T") and tensor.dim() != 2:
            raise ValueError(f"{file}: {name[:-2]} is {tuple(tensor.shape)}, not a matrix")
        made[own] = tensor.T if name.endswith(".T") else tensor
    return made


def to_theirs(tensors: Mapping[str, Tensor], names: Mapping[str, str], dtype: torch.dtype) -> dict[str, Tensor]:
    """Our tensors under their names, on the CPU and each with memory of its own, as files want them."""
    made = {}
    for name, own in names.items():
        tensor = tensors[own].T if name.endswith(".T") else tensors[own]
        made[name.removesuffix(".T")] = tensor.to("cpu", dtype).clone(memory_format=torch.contiguous_format)
    return made
