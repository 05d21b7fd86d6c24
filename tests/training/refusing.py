"""Memory that is refused once: at any operator of torch that a step asks for."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Refusing(TorchDispatchMode):
    """While this lasts operators are counted from 0, and the one at `at` raises that there is no memory, once."""

    def __init__(self, at: int = -1) -> None:
        super().__init__()
        self._at, self.count = at, 0
        self.taken: list[int] = []
        """Those that took memory: with a result that is in none of what they were given."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        number, self.count = self.count, self.count + 1
        if number == self._at:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate 9 bytes for {func}.")
        made = func(*args, **(kwargs or {}))
        if not _storages(made) <= _storages((args, kwargs)):
            self.taken.append(number)
        return made


def _storages(values: Any) -> set[int]:
    return {one.untyped_storage()._cdata for one in tree_flatten(values)[0] if isinstance(one, Tensor)}


def count(work: Callable[[], object]) -> int:
    """How many operators some work asks for."""
    with Refusing() as mode:
        work()
    return mode.count
