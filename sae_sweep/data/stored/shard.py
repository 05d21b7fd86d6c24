"""A shard of stored activations: the arrays of one file, or of a part that is read at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sae_sweep.errors import ConfigError

Array: TypeAlias = npt.NDArray[Any]
TOKENS = ("tokens", "token_ids", "input_ids")
"""Names of arrays of the token at each activation."""
COUNTED = ("counted", "mask", "attention_mask")
"""Names of arrays that are 0 where an activation does not count."""
FIELD = "activations"
"""The name of an array that holds activations, where a file has several and none was named."""


class Bfloat16:
    """The bits of an array of bfloat16, which numpy lacks; what is read of it is float32, exactly."""

    def __init__(self, bits: Array) -> None:
        self._bits = bits
        self.shape, self.ndim, self.dtype = bits.shape, bits.ndim, np.dtype(np.float32)

    def __getitem__(self, where: Any) -> Array:
        return (self._bits[where].astype(np.uint32) << 16).view(np.float32)


Arrays: TypeAlias = "Mapping[str, Array | Bfloat16]"


@dataclass(frozen=True)
class Shard:
    """Activations [N, D], or [R, T, D] where they stand in rows of T, and what stands beside them."""

    label: str
    """The file, for messages."""
    load: Callable[[], Arrays]
    """The arrays by name; cheap to ask again."""
    field: str
    """Which of them holds the activations."""
    shape: tuple[int, ...]

    def rows(self, context: int) -> int:
        """Rows of so many positions, which never reach from one row of the file into the next."""
        return int(np.prod(self.shape[:-1])) // context

    def row(self, number: int, context: int) -> tuple[Array, Array | None, Array | None]:
        """A row's activations [context, D], tokens [context] and marks of which count [context]; None for none."""
        arrays, start = self.load(), number * context
        where: Any = slice(start, start + context)
        if len(self.shape) == 3:
            row, start = divmod(start, self.shape[1])
            where = (row, slice(start, start + context))
        beside = [self._beside(arrays, names) for names in (TOKENS, COUNTED)]
        tokens_T, counted_T = (None if array is None else array[where] for array in beside)
        return arrays[self.field][where], tokens_T, counted_T

    def check(self, context: int) -> None:
        """Raises ConfigError where rows of so many positions would not be what the file has, or arrays do not fit."""
        if len(self.shape) == 3 and self.shape[1] % context:
            raise ConfigError(
                f"data.context={context}: {self.label} has rows of {self.shape[1]} positions; take"
                f" data.context={self.shape[1]}"
            )
        arrays = self.load()
        for names in (TOKENS, COUNTED):
            array = self._beside(arrays, names)
            if array is not None and array.shape != self.shape[:-1]:
                raise ConfigError(
                    f"{self.label}: {next(name for name in names if name in arrays)} has shape"
                    f" {list(array.shape)}, and its activations {list(self.shape)}"
                )

    @staticmethod
    def _beside(arrays: Arrays, names: Sequence[str]) -> "Array | Bfloat16 | None":
        return next((arrays[name] for name in names if name in arrays), None)


def shard(label: str, load: Callable[[], Arrays], field: str) -> Shard:
    """The shard of these arrays. Raises ConfigError where it cannot be told which of them holds activations."""
    arrays = load()
    fitting = [name for name, array in arrays.items() if array.ndim in (2, 3) and array.dtype.kind == "f"]
    if field not in fitting:
        if field != FIELD or len(fitting) != 1:
            found = ", ".join(f"{name} {list(array.shape)} {array.dtype}" for name, array in arrays.items())
            raise ConfigError(
                f"data.field={field} is no array of [activations, numbers] or [rows, positions, numbers] in {label},"
                f" which has {found or 'none'}"
            )
        (field,) = fitting
    return Shard(label, load, field, tuple(arrays[field].shape))
