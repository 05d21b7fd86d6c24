"""What `training.precision` says of a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

HALVES = {"auto": torch.float16, "bf16": torch.float16}
"""By `training.precision`: no choice is different for it, and float16 leaves fewer candidates than bfloat16."""
ROWS_IN = {"bf16": torch.bfloat16}
"""Likewise: gradients are rounded so, and what is decoded; not what fires, nor how strongly."""


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """While this lasts a GPU multiplies float32 as `training.precision` says."""
    settings = torch.backends.cuda.matmul
    before, settings.allow_tf32 = settings.allow_tf32, precision == "tf32"
    try:
        yield
    finally:
        settings.allow_tf32 = before
