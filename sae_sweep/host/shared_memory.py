"""Tensors in memory that forked processes share: what one writes, the others read."""

import mmap

import torch
from torch import Tensor


def shared_empty(shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """On the CPU, of zeros. Its pages take memory once they are written.

    An anonymous mapping: torch's own way goes through /dev/shm, of which a container often has 64 MB.
    """
    count = torch.Size(shape).numel()
    room = mmap.mmap(-1, max(1, count * dtype.itemsize))
    return torch.frombuffer(room, dtype=dtype, count=count).view(shape) if count else torch.empty(shape, dtype=dtype)


def shared(tensor: Tensor) -> Tensor:
    """A copy."""
    return shared_empty(tensor.shape, tensor.dtype).copy_(tensor)
