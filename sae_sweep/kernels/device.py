"""Which implementation serves a tensor."""

from functools import cache
from importlib.util import find_spec

from torch import Tensor


def on_triton(tensor: Tensor) -> bool:
    """Whether the Triton kernels take it: on CUDA, where triton is there. torch's own operators take all others."""
    return tensor.is_cuda and _importable()


@cache
def _importable() -> bool:
    return find_spec("triton") is not None
