"""What a fake device is asked for: operators with their bytes and operations, what makes the host wait, live memory."""

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from scripts.bench.fake.streams import Streams

PACKAGE = str(Path(__file__).parents[3] / "sae_sweep") + "/"
VIEWS = frozenset(
    [
        "view",
        "_unsafe_view",
        "reshape",
        "t",
        "transpose",
        "permute",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "expand",
        "as_strided",
        "detach",
        "alias",
        "unbind",
        "split",
        "split_with_sizes",
        "unflatten",
        "empty",
        "empty_like",
        "new_empty",
        "empty_strided",
        "lift_fresh",
        "_reshape_alias",
        "diagonal",
        "new_empty_strided",
        "chunk",
        "set_",
        "device",
        "resize_",
    ]
)
"""Operators that move no bytes."""
FILLS = frozenset(
    [
        "zeros",
        "zeros_like",
        "full",
        "ones",
        "fill_",
        "zero_",
        "new_zeros",
        "new_full",
        "new_ones",
        "full_like",
        "ones_like",
        "arange",
    ]
)
GATHERS = frozenset(["index_select", "gather", "embedding", "index"])
SIZES = frozenset(["nonzero", "masked_select", "unique", "_unique2", "unique_dim", "bincount"])
"""Operators whose result has a size that only the device knows."""
ATOMIC = frozenset(["index_add", "index_add_", "scatter_add", "scatter_add_", "put_", "histc", "cumsum"])
"""Operators that add floats in no fixed order on CUDA: of running sums, one that is as long as the tensor."""


@dataclass(frozen=True)
class Op:
    """One operator or launch."""

    name: str
    flops: int
    read: int
    written: int
    place: str
    """The function of ours that asks for it."""
    kind: str
    """The dtype that a product is multiplied in, `tf32` among them; `bytes` of all others."""


class Log(TorchDispatchMode):
    """Notes what is asked of fake `cuda` tensors, and answers what their device would have to be asked."""

    def __init__(self, entries: Callable[[Tensor], int], item: Callable[[str], Any] | None = None) -> None:
        """`entries` says how many places of a mask are true, `item` which number is read at a place, None being 0."""
        super().__init__()
        self._entries, self._item = entries, item
        self.ops: list[Op] = []
        self.waits: Counter[str] = Counter()
        """By operator and place: what makes the host wait."""
        self.atomics: Counter[str] = Counter()
        """By operator and place: sums whose order differs from run to run."""
        self.held: Callable[[int], int] = lambda room: room
        """How many entries are in a list with so much room."""
        self.live = self.peak = 0
        """Bytes of storages, now and at most."""
        self._storages: set[int] = set()
        self.streams = Streams()

    def clear(self) -> None:
        """Begin anew, with what is live."""
        self.ops, self.peak = [], self.live
        self.waits.clear()
        self.atomics.clear()

    def launched(self, name: str, read: int, written: int, arguments: Sequence[Any] = ()) -> None:
        """Note a kernel's launch; any of its tensors may be written to."""
        self.streams.touched([], [each for each in arguments if isinstance(each, Tensor)])
        self.ops.append(Op(name, 0, read, written, place(), "bytes"))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        on_device = any(tensor.is_cuda for tensor in tensors)
        if name == "_local_scalar_dense":
            self.streams.touched([args[0]], [])
            self.streams.waited()
            return self._number(args[0])
        if name in SIZES or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            return self._sized(name, args[0])
        if name in ("index", "index_put", "index_put_"):
            args = self._by_places(name, args)
        if on_device or any(torch.device(d).type == "cuda" for d in [kwargs.get("device")] if d is not None):
            self._copied(name, args, kwargs)
        made = func(*args, **kwargs)
        self.streams.asked(func, args, kwargs, made)
        results = [each for each in tree_flatten(made)[0] if isinstance(each, Tensor)]
        if any(tensor.is_cuda for tensor in (*tensors, *results)):
            self._note(name, args, tensors, results)
        return made

    def _number(self, tensor: Tensor) -> Any:
        if tensor.is_cuda:
            self.waits[f"item at {place()}"] += 1
        said = None if self._item is None else self._item(place())
        if said is not None:
            return said
        return False if tensor.dtype == torch.bool else 1.0 if tensor.dtype.is_floating_point else 0

    def _sized(self, name: str, tensor: Tensor) -> Tensor:
        if tensor.is_cuda:
            self.waits[f"{name} at {place()}"] += 1
        shape = (self._entries(tensor), tensor.dim()) if name == "nonzero" else (self._entries(tensor),)
        found = torch.empty(shape, dtype=torch.int64, device=tensor.device)
        self._note(name, (tensor,), [tensor], [found])
        return found

    def _by_places(self, name: str, args: Any) -> Any:
        """Masks among indices become so many places as the mask is said to have."""
        places: list[Tensor | None] = []
        for index in args[1]:
            if index is None or index.dtype != torch.bool:
                places.append(index)
                continue
            if index.is_cuda:
                self.waits[f"{name} by a mask at {place()}"] += 1
            count = min(self._entries(index), index.numel())
            places += [torch.empty(count, dtype=torch.int64, device=index.device) for _ in range(index.dim())]
        return (args[0], places, *args[2:])

    def _copied(self, name: str, args: Any, kwargs: Any) -> None:
        """A copy between devices makes the host wait, unless it is asked not to."""
        if name not in ("_to_copy", "copy_"):
            return
        source = args[0] if name == "_to_copy" else args[1]
        target = torch.device(kwargs.get("device") or source.device) if name == "_to_copy" else args[0].device
        free = kwargs.get("non_blocking", args[2] if name == "copy_" and len(args) > 2 else False)
        if source.device.type != target.type and not free:
            self.waits[f"copy {source.device.type} to {target.type} at {place()}"] += 1

    def _note(self, name: str, args: Any, tensors: list[Tensor], results: list[Tensor]) -> None:
        for result in results:
            self._hold(result)
        if name in VIEWS:
            return
        sums = name in ATOMIC or (name.startswith("index_put") and any(each is True for each in args[2:]))
        if name == "cumsum" and args[0].shape[args[1]] < args[0].numel():
            sums = False
        if sums and results[0].is_cuda and results[0].dtype.is_floating_point:
            self.atomics[f"{name} at {place()}"] += 1
        written = sum(map(_bytes, results))
        read = sum(map(_bytes, {id(tensor): tensor for tensor in tensors}.values()))
        if name in GATHERS:
            read = min(_bytes(tensors[0]), written) + sum(map(_bytes, tensors[1:]))
        elif name in FILLS:
            read = 0
        elif name.startswith("_fused_adam"):
            written = read * 3 // 4  # the gradient is read alone
        flops = _flops(name, args)
        self.ops.append(Op(name, flops, read, written, place(), _kind(args) if flops else "bytes"))

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if not tensor.is_cuda or key in self._storages:
            return
        self._storages.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone() -> None:
            self._storages.discard(key)
            self.live -= size

        weakref.finalize(storage, gone)


def place() -> str:
    """The innermost function of the package that is running: room/file:function."""
    for frame in _frames():
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE):
            return f"{file.removeprefix(PACKAGE).removesuffix('.py')}:{frame.f_code.co_name}"
    return "elsewhere"


def _frames() -> Iterator[Any]:
    frame = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _flops(name: str, args: Any) -> int:
    if name in ("mm", "bmm"):
        return 2 * prod(args[0].shape) * args[1].shape[-1]
    if name == "addmm":
        return 2 * prod(args[1].shape) * args[2].shape[-1]
    return 2 * args[name == "addmv"].numel() if name in ("mv", "addmv") else 0


def _kind(args: Any) -> str:
    """A matrix times a vector is no work for tensor cores."""
    dtype = next(each for each in args if isinstance(each, Tensor) and each.dim() >= 2).dtype
    fast = dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    return "tf32" if fast else str(dtype).removeprefix("torch.")
