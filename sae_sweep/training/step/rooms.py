"""How long the lists of sparse steps are on a device that no step waits for, and steps that were lost because one was
too short.

Only the device knows how many entries a step has. A list is given room for what its members had when they last looked,
and half as much again. Where that is not enough the step changes nothing, nor does any of these members' after it,
until they look again; then they go back to it, and take it on the dense route, which needs no room. From then on they
have twice the room that they had: more candidates than expected come with every step (`saes/encoders/halved.py`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Room

SLACK = 1.5
"""Room for so many times the entries that were seen."""
LEAST = 4_096
"""Entries that a member has room for at least."""

MOST_CROWD = 16
"""Times the room that would be enough in full precision, at most."""


class Rooms:
    """The rooms of a bank's chunks, and how many steps each member has lost since it last looked."""

    def __init__(self, members: int, device: torch.device) -> None:
        self.asked = device.type == "cpu"
        """Whether steps ask the device for the lengths of their lists."""
        self._lost_M = torch.zeros(members, dtype=torch.int64, device=device)

    def of(
        self, members: slice, seen: Sequence[int], most: Sequence[int], crowd: int, half: torch.dtype | None
    ) -> Room | None:
        """The room of some neighbours' lists, given how many entries each had, and can have, and how much more room
        they need than that; None where lists are as long as need be."""
        if self.asked:
            return None
        wanted = (crowd * int(SLACK * own) + LEAST for own in seen)
        entries = sum(map(min, most, wanted))
        return Room(entries, (self._lost_M[members] > 0).any(), half)

    def begin(self) -> None:
        """Count anew: what a turn lost that was taken back is nobody's."""
        if not self.asked:
            self._lost_M.zero_()

    def note(self, members: slice, lost: Tensor) -> None:
        """Count a step of theirs, if it is `lost` []."""
        self._lost_M[members].add_(lost)

    def lost(self, members: slice, this: Tensor | None = None) -> list[int]:
        """Steps that each of some neighbours has lost; with `this` one [], if it is. It waits for the device."""
        own_M = self._lost_M[members]
        if self.asked:
            return [0] * len(own_M)
        found: list[int] = (own_M if this is None else own_M + this).tolist()
        return found

    def forget(self, members: slice) -> None:
        """Count anew what these lose, from here on."""
        self._lost_M[members].zero_()
