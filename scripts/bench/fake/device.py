"""The code as it runs on CUDA, on a machine without: tensors that are shapes alone, on a `cuda:0` that is not there.

What is run is the real code, with the operators, sizes and devices that it would ask a GPU for; `log.py` notes them.
It cannot see numbers, races between streams, how fast a kernel is, or what cuBLAS and NCCL take for themselves. The
device is named `cuda:0`: a build of torch without CUDA takes a bare `cuda` for the CPU.
"""

import ctypes
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.runtime.jit import KernelInterface

from sae_sweep.kernels import cuda, sparse
from sae_sweep.saes.layout import layout_of
from scripts.bench.fake.autograd import grad
from scripts.bench.fake.launches import BYTES
from scripts.bench.fake.log import Log

DEVICE = torch.device("cuda:0")
EMPTY = torch.empty
CPU, CUDA = 0, 1
"""Places in torch's registry of device guards."""


@contextmanager
def fake_cuda(
    entries: Callable[[Tensor], int] = lambda mask: max(1, mask.numel() // 20),
    item: Callable[[str], Any] | None = None,
) -> Iterator[Log]:
    """While this lasts tensors hold no numbers, and those on `cuda:0` are noted; what is said of `Log` is meant."""
    log = Log(entries, item)
    layout_of.cache_clear()
    with _guarded(), _replaced(log), FakeTensorMode(), log:
        try:
            yield log
        finally:
            sparse._begins.cache_clear()
            layout_of.cache_clear()


@contextmanager
def _guarded() -> Iterator[None]:
    """While this lasts the CPU's device guard, which does nothing, is CUDA's, of which this build has none."""
    c10 = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    registry = (ctypes.c_void_p * 22).in_dll(c10, "_ZN3c104impl26device_guard_impl_registryE")
    before = registry[CUDA]
    registry[CUDA] = before or registry[CPU]
    try:
        yield
    finally:
        registry[CUDA] = before


@contextmanager
def _replaced(log: Log) -> Iterator[None]:
    """While this lasts launches are noted, and what asks torch for a driver does without."""
    patches: list[Any] = [
        patch.object(torch.autograd, "grad", grad),
        patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor),
        patch.object(torch.cuda, "device_of", _Nothing),
        *(patch.object(torch.cuda, name, one) for name, one in log.streams.functions().items()),
        patch.object(torch, "empty", _unpinned),
    ]
    for module in kernel_modules():
        for name, kernel in vars(module).items():
            if isinstance(kernel, KernelInterface) and name in BYTES:
                patches.append(patch.object(module, name, _Launches(log, name)))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def _unpinned(*arguments: Any, pin_memory: bool = False, **keys: Any) -> Tensor:
    """Memory of the host is pinned by a driver."""
    return EMPTY(*arguments, **keys)


def kernel_modules() -> list[Any]:
    """The modules of kernels in Triton."""
    return [importlib.import_module(f"{cuda.__name__}.{each.name}") for each in pkgutil.iter_modules(cuda.__path__)]


class _Launches:
    """A kernel whose launches are noted."""

    def __init__(self, log: Log, name: str) -> None:
        self._log, self._name = log, name

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **constants: Any) -> None:
            moved = BYTES[self._name](grid, arguments, constants, self._log.held)
            self._log.launched(self._name, moved.read, moved.written, arguments)

        return launch


class _Nothing:
    """A context in which nothing is different."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass
