"""Waves on their way between the host's memory and a device's: the next one comes in while one is trained.

There are two slots on the device, each with room for any wave. Copies follow each other on a stream of their own: one
into a slot waits for all that was asked of the device before, and, by its place in that stream, for the copy out of the
slot; steps wait for the copy in, and the copy out for the steps. What is on the host may be read once `close` has
returned. On a CPU the device's memory is the host's, there is one slot, and copies are made where they are asked for.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.training.devices.paged import Paged


@dataclass(frozen=True)
class _Sent:
    """A wave on its way in."""

    wave: list[Paged]
    slot: int
    parts: list[Tensor]
    """Of the slot, one for each of them."""
    arrived: torch.cuda.Event | None


class Ferry:
    """Carries the waves of one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._room = 0
        self._slots: list[Tensor | None] = [None, None]
        self._coming: _Sent | None = None
        self._there: _Sent | None = None

    def open(self, waves: Sequence[Sequence[Paged]]) -> None:
        """These will take their turns."""
        self._room = max((sum(one.nbytes for one in wave) for wave in waves), default=0)

    def bring(self, wave: list[Paged]) -> None:
        """Let the members of a wave be on the device, for all that is asked of it from here on."""
        coming, self._coming = self._coming, None
        if coming is None or coming.wave != wave:
            coming = self._sent(wave, 0 if coming is None else coming.slot)
        self._there = coming
        if coming.arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(coming.arrived)
        for one, part in zip(wave, coming.parts, strict=True):
            one.come_in(part)

    def begin(self, wave: list[Paged]) -> None:
        """Let the wave that comes next be on its way, while steps of the one that is there are taken."""
        if self._stream is not None and self._there is not None and wave:
            self._coming = self._sent(wave, 1 - self._there.slot)

    def take(self) -> None:
        """Let the wave that is there go to the host, as its steps leave it."""
        there, self._there = self._there, None
        if there is None:
            return
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with self._copying():
            for one, part in zip(there.wave, there.parts, strict=True):
                one.buffer_N.copy_(part, non_blocking=True)
        for one in there.wave:
            one.leave()

    def close(self) -> None:
        """Wait for what is on its way, and let go of the device's memory."""
        if self._stream is not None:
            self._stream.synchronize()
        self._coming = self._there = None
        self._slots = [None, None]

    def _sent(self, wave: list[Paged], slot: int) -> _Sent:
        buffer_N = self._slots[slot]
        if buffer_N is None:
            buffer_N = self._slots[slot] = torch.empty(self._room, dtype=torch.uint8, device=self._device)
        parts = list(buffer_N[: sum(one.nbytes for one in wave)].split([one.nbytes for one in wave]))
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with self._copying():
            for one, part in zip(wave, parts, strict=True):
                part.copy_(one.buffer_N, non_blocking=True)
        return _Sent(wave, slot, parts, None if self._stream is None else self._stream.record_event())

    def _copying(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
