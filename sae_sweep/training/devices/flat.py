"""Tensors end to end in one buffer, so that one copy moves all of them; pinned where it lies beside a GPU."""

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from sae_sweep.plan.constants import PINNED_ROUNDED_MB

ALIGNED = 256
"""Bytes: where torch's own tensors begin, and what kernels may count on."""
PIN_EXACTLY = "pinned_max_round_threshold_mb"
"""A setting of the allocator of newer versions of torch."""
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


class Flat:
    """Where tensors of some shapes and types are in a buffer."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._places: dict[str, tuple[slice, torch.dtype, torch.Size]] = {}
        self.nbytes = 0
        """Of the buffer."""
        for name, tensor in tensors.items():
            self._places[name] = slice(self.nbytes, self.nbytes + tensor.nbytes), tensor.dtype, tensor.shape
            self.nbytes += -(-tensor.nbytes // ALIGNED) * ALIGNED

    def views(self, buffer_N: Tensor) -> dict[str, Tensor]:
        """The tensors in a buffer [nbytes] uint8."""
        return {name: buffer_N[own].view(dtype).view(shape) for name, (own, dtype, shape) in self._places.items()}


def host_buffer(nbytes: int, device: torch.device) -> Tensor:
    """[nbytes] uint8 in the host's memory, from which a device reads while the host does something else."""
    if device.type != "cuda":
        return torch.empty(nbytes, dtype=torch.uint8)
    _pin_exactly()
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)


def _pin_exactly() -> None:
    """Have torch pin as much as it is asked for, where it can: by itself it takes powers of two, for the members of
    gated_gemma 245 GB where they have 155."""
    settings = next((os.environ[name] for name in ALLOCATOR_VARIABLES if os.environ.get(name)), "")
    change = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    if change is not None and PIN_EXACTLY not in settings:
        # All of them: what it is not told again is as if never said.
        change(f"{settings},{PIN_EXACTLY}:{PINNED_ROUNDED_MB}".lstrip(","))
