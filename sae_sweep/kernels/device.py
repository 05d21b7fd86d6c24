"""Which implementation serves a tensor, and how numbers of the host get to where it is."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


def on_triton(tensor: Tensor) -> bool:
    """Whether the Triton kernels take it: on CUDA, where triton is there. torch's own operators take all others."""
    return tensor.is_cuda and _importable()


def beside(tensor: Tensor, values: Sequence[float], dtype: torch.dtype | None = None) -> Tensor:
    """[N]: numbers of the host on a tensor's device, in its dtype unless another is given; nothing waits for them."""
    return moved(torch.tensor(values, dtype=dtype or tensor.dtype), tensor.device)


def moved(made: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device. From memory that is not pinned a copy to a GPU would be waited for."""
    return made if device.type == "cpu" else made.pin_memory().to(device, non_blocking=True)


@cache
def _importable() -> bool:
    return find_spec("triton") is not None
