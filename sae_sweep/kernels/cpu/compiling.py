"""Compiling loops with numba, for the CPU they run on."""

import gc
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from numba import config as numba_config
from numba import njit
from numba.core import event
from numpy.typing import NDArray

from sae_sweep.errors import ConfigError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Array = NDArray[Any]
Whole = Any
"""A whole number: Python's, or one of so many bits in a loop."""


def kept_in(folder: Path, chosen: str) -> Path:
    """Where the loops of a folder are kept: in `chosen`, or beside them. A change of any file gives them a new place,
    since numba looks only at a loop's own file, and not at those of the loops it calls."""
    said = blake2b(digest_size=8)
    for file in sorted(folder.glob("*.py")):
        said.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return Path(chosen or folder / "__pycache__") / f"loops-{said.hexdigest()}"


config: Any = numba_config
"""Its attributes are made when it is imported, which no checker sees."""
if config.DISABLE_JIT:
    raise ConfigError("NUMBA_DISABLE_JIT=1 leaves the loops to Python, a thousand times slower; unset it")
_KEPT_IN = str(kept_in(Path(__file__).parent, config.CACHE_DIR))


def compiled(function: Callable[Arguments, Result], reorder: bool = False) -> Callable[Arguments, Result]:
    """The function, compiled for each dtype when it is first called with it, and kept on disk where that can be.

    With `reorder` sums may be taken in another order than is written, which several numbers at once take.
    """
    allowed = {"reassoc", "contract"} if reorder else False
    others, config.CACHE_DIR = config.CACHE_DIR, _KEPT_IN  # which numba looks at now, not when it compiles
    try:
        return njit(nogil=True, error_model="numpy", fastmath=allowed, cache=True)(function)
    except RuntimeError:  # there is no folder that this user may write to
        return njit(nogil=True, error_model="numpy", fastmath=allowed)(function)
    finally:
        config.CACHE_DIR = others


class _Compiling(event.Listener):
    """Whoever waits for it is told. Compiling leaves exceptions behind, whose tracebacks would keep what its callers
    held: a step's matrices."""

    tell: Callable[[], None] | None = None

    def on_start(self, event: event.Event) -> None:
        if self.tell is not None:
            self.tell()

    def on_end(self, event: event.Event) -> None:
        gc.collect()


_listener = _Compiling()
event.register("numba:compile", _listener)


def tell_compiling(tell: Callable[[], None]) -> None:
    """Let `tell` be called when a loop is compiled, and nobody else any more."""
    _listener.tell = tell
