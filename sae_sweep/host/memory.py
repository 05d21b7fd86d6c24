"""Running out of memory, on a device or on the host: how it is told from other errors, and what can be given back."""

import gc

import torch

from sae_sweep.host import allocator as process

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError, RuntimeError)
"""What to catch, before `is_out_of_memory` looks closer."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was refused: torch has a type for it on a GPU only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and process.refused(str(error)) is not None
    )


def give_back() -> None:
    """Free what nothing holds any more, to the last page.

    Not while an error is handled: it holds what its step had made.
    """
    gc.collect()
    process.hand_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
