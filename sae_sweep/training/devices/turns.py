"""Who of several processes takes which trainer next, and when all stop."""

import os
from collections.abc import Iterator, Sequence

import torch

from sae_sweep.host.shared_memory import shared_empty

PLACE_BYTES = 4
"""Few enough that the system hands them to one reader."""
DONE = 2 ** (8 * PLACE_BYTES) - 1
"""There is no more for the process that reads it."""


class Stopped(Exception):  # noqa: N818 - it reports no error
    """Raised between two steps where all are to stop."""


class Turns:
    """Places of trainers, each given to the process that asks first; forked processes share them."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        self._stopping = shared_empty((1,), torch.uint8)

    def begin(self, places: Sequence[int], processes: int) -> None:
        """Hand out these places, and to each of so many processes an end."""
        self._stopping[0] = 0
        os.write(self._in, b"".join(n.to_bytes(PLACE_BYTES, "little") for n in [*places, *[DONE] * processes]))

    def __iter__(self) -> Iterator[int]:
        """What is left for whoever asks; each process has to come to an end of its own."""
        while (place := int.from_bytes(os.read(self._out, PLACE_BYTES), "little")) != DONE:
            yield place

    def stop(self) -> None:
        """Let all stop, between two steps."""
        self._stopping[0] = 1

    def heed(self) -> None:
        """Raises Stopped where all are to stop."""
        if self._stopping[0]:
            raise Stopped

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
