"""The numbers of a matrix that were chosen, by row; and choosing them, on a CPU by loops (`cpu/choosing.py`)."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae_sweep.kernels import cpu
from sae_sweep.kernels.device import on_triton
from sae_sweep.kernels.rows import RowSums, Scaled
from sae_sweep.kernels.sparse import located

if TYPE_CHECKING:
    from sae_sweep.kernels.cpu import choosing

NARROW = 2**31 - 1
"""As many entries as int32 counts; half as wide as int64 is read and written twice as fast."""


class Entries(NamedTuple):
    """N numbers of R rows, a row after the other."""

    offsets: Tensor
    """[R + 1]: where each row begins."""
    column_N: Tensor
    value_N: Tensor


class Room:
    """How long lists are whose length only the device knows: as long as there is room. Whether that was enough is a
    number on the device too, which who made it looks at when it costs nothing."""

    def __init__(self, entries: int, lost_before: Tensor, half: torch.dtype | None = None) -> None:
        """`lost_before` [] bool: whether a list that this one goes on from was cut. With `half`, a format of 16 bits,
        products in it say what may be chosen."""
        self.entries, self.half = entries, half
        self._lost, self._wider = lost_before, list[Room]()
        self.rows: dict[str, RowSums] = {}
        """By name of the weight: gradients that are not made."""
        self.inputs: Scaled | None = None
        """Of the step, where they are so."""
        self.rows_in: torch.dtype | None = None
        """The format that rows of decoders, and of what comes back to them, are read in; None is their own."""

    @property
    def lost(self) -> Tensor:
        """[] bool: whether a list was cut."""
        lost = self._lost
        for other in self._wider:
            lost = lost | other.lost
        return lost

    def hold(self, wanted: Tensor) -> None:
        """Take in a list of so many entries, [] int64; those beyond the room are lost."""
        self._lost = self._lost | (wanted > self.entries)

    def wider(self, times: int) -> "Room":
        """Room for so many times the entries: where that is not enough, this one is not."""
        self._wider.append(Room(times * self.entries, self._lost))
        return self._wider[-1]


def where(chosen_RF: Tensor, z_RF: Tensor) -> Entries:
    """The numbers at which a mask is true, ordered by column in each row."""
    flat_N = chosen_RF.reshape(-1).nonzero().squeeze(1)
    offsets, column_N = located(flat_N, *z_RF.shape)
    return Entries(offsets, column_N, z_RF.reshape(-1).index_select(0, flat_N))


def above(z_RF: Tensor, floor_F: Tensor | float = 0, bias_F: Tensor | None = None) -> Entries:
    """The numbers z, or z + bias, above their column's floor, ordered by column in each row."""
    if z_RF.device.type != "cpu":
        z_RF = z_RF if bias_F is None else z_RF + bias_F
        return where(z_RF > floor_F, z_RF)
    floor_F = torch.as_tensor(floor_F, dtype=z_RF.dtype).expand(z_RF.shape[1]).contiguous()
    room = room_for(len(z_RF), z_RF.numel(), z_RF.dtype)
    bias_F = z_RF.new_zeros(z_RF.shape[1]) if bias_F is None else bias_F
    return listed(room, cpu.choosing.above(z_RF.contiguous().numpy(), bias_F.numpy(), floor_F.numpy(), room))


def above_within(z_RF: Tensor, floor: Tensor, room: Room) -> Entries:
    """The numbers above their floor, which is [], [F] or [R, 1], in lists that fill the room: what comes after the last
    offset is the last column, and 0. No device is waited for."""
    offsets = _offsets(_counts_above(z_RF, floor), room)
    return Entries(offsets, *_written_above(z_RF, floor, offsets, room.entries))


def _offsets(counts_R: Tensor, room: Room) -> Tensor:
    """[R + 1] int32: where rows of so many entries begin, in lists that fill the room, which is told of all."""
    ends = counts_R.new_zeros(len(counts_R) + 1)
    torch.cumsum(counts_R, 0, out=ends[1:])
    room.hold(ends[-1])
    return ends.clamp(max=room.entries).to(torch.int32)


def _counts_above(z_RF: Tensor, floor: Tensor) -> Tensor:
    if on_triton(z_RF):
        from sae_sweep.kernels.cuda import listing

        return listing.counts_above(z_RF, floor)
    return (z_RF > floor).sum(1)


def _written_above(z_RF: Tensor, floor: Tensor, offsets: Tensor, room: int) -> tuple[Tensor, Tensor]:
    if on_triton(z_RF):
        from sae_sweep.kernels.cuda import listing

        return listing.write_above(z_RF, floor, offsets, room)
    flat_N = (z_RF > floor).reshape(-1).nonzero().squeeze(1)[:room]
    columns_N = torch.full((room,), z_RF.shape[1] - 1, dtype=torch.int32, device=z_RF.device)
    columns_N[: len(flat_N)] = (flat_N % z_RF.shape[1]).to(torch.int32)
    value_N = z_RF.new_zeros(room)
    value_N[: len(flat_N)] = z_RF.reshape(-1).index_select(0, flat_N)
    return columns_N, value_N


def kept_within(entries: Entries, kept_N: Tensor, room: Room, last: int) -> Entries:
    """Those of some entries that a mask keeps, in lists that fill the room; what is left of it is of the `last`
    column. What the mask says of padding does not matter."""
    if on_triton(kept_N):
        from sae_sweep.kernels.cuda import listing

        begins = _offsets(listing.counts_kept(entries.offsets, kept_N), room)
        return Entries(begins, *listing.write_kept(*entries, kept_N, begins, room.entries, last))
    kept_N = kept_N & (torch.arange(len(kept_N), device=kept_N.device) < entries.offsets[-1])
    ends_N = kept_N.cumsum(0)
    begins = torch.cat([ends_N.new_zeros(1), ends_N]).index_select(0, entries.offsets)
    room.hold(begins[-1])
    place_N = torch.where(kept_N, ends_N - 1, room.entries).clamp(max=room.entries)  # one more, for what is left out
    column_N = torch.full((room.entries + 1,), last, dtype=torch.int32, device=kept_N.device)
    value_N = entries.value_N.new_zeros(room.entries + 1)
    column_N.index_copy_(0, place_N, entries.column_N.to(torch.int32))
    value_N.index_copy_(0, place_N, entries.value_N)
    return Entries(begins.clamp(max=room.entries).to(torch.int32), column_N[:-1], value_N[:-1])


def largest_of_rows(
    z_RF: Tensor, widths: Sequence[int], counts: Sequence[int], bias_F: Tensor | None = None
) -> Entries:
    """The largest z, or z + bias, of each row: as many as its count says for each of the parts that so many columns
    make, but none that is not above 0. Of equal ones the first are taken."""
    room = room_for(len(z_RF), z_RF.numel(), z_RF.dtype)
    bias_F = z_RF.new_zeros(z_RF.shape[1]) if bias_F is None else bias_F
    numbers = z_RF.contiguous().numpy(), bias_F.numpy()
    return listed(room, cpu.choosing.largest_of_rows(*numbers, parts_of(z_RF, widths, counts), room))


def largest_of_entries(entries: Entries, widths: Sequence[int], counts: Sequence[int]) -> Entries:
    """The same, among the entries of a matrix, which are ordered by column in each row."""
    room = room_for(len(entries.offsets) - 1, len(entries.value_N), entries.value_N.dtype)
    parts = parts_of(entries.value_N, widths, counts)
    return listed(room, cpu.choosing.largest_of_entries(*_arrays(entries), parts, room))


def kept(entries: Entries, floor_F: Tensor, inclusive: bool = False) -> Entries:
    """Of some entries those above their column's floor, or at it too."""
    room = _arrays(Entries(*(tensor.clone() for tensor in entries)))
    return listed(room, cpu.choosing.keep_above(*room, floor_F.numpy(), inclusive))


def rows_where(chosen_R: Tensor, entries: Entries) -> Entries:
    """Those of the rows at which a mask is true."""
    offsets, column_N, value_N = entries
    lengths_R = offsets.diff()
    chosen_N = torch.repeat_interleave(chosen_R, lengths_R, output_size=len(column_N))
    ends = lengths_R[chosen_R].cumsum(0, dtype=offsets.dtype)
    return Entries(torch.cat([offsets[:1], ends]), column_N[chosen_N], value_N[chosen_N])


def joined(pieces: Sequence[Entries]) -> Entries:
    """Rows below each other."""
    if len(pieces) == 1:
        return pieces[0]
    total = sum(len(piece.value_N) for piece in pieces)
    dtype = torch.int32 if total <= NARROW else torch.int64
    rows, device = sum(len(piece.offsets) - 1 for piece in pieces), pieces[0].offsets.device
    offsets = torch.empty(rows + 1, dtype=dtype, device=device)
    offsets[0], row, entry = 0, 1, 0
    for piece in pieces:
        rows = len(piece.offsets) - 1
        torch.add(piece.offsets[1:], entry, out=offsets[row : row + rows])
        row, entry = row + rows, entry + len(piece.value_N)
    column_N = torch.cat([piece.column_N for piece in pieces]).to(dtype)
    return Entries(offsets, column_N, torch.cat([piece.value_N for piece in pieces]))


def side_by_side(pieces: Sequence[Entries], columns: int) -> Entries:
    """The rows of matrices of so many columns each, one matrix to the right of the other."""
    counts_RP = torch.stack([piece.offsets.diff() for piece in pieces], dim=1)
    begins = torch.cat([counts_RP.new_zeros(1), counts_RP.flatten().cumsum(0, dtype=counts_RP.dtype)])
    column_N, value_N = (torch.cat([piece[which] for piece in pieces]) for which in (1, 2))
    for number, piece in enumerate(pieces):
        moved_R = begins[number : -1 : len(pieces)] - piece.offsets[:-1]
        place_n = torch.arange(len(piece.value_N), device=value_N.device)
        place_n = place_n + moved_R.repeat_interleave(counts_RP[:, number], output_size=len(place_n))
        column_N[place_n], value_N[place_n] = piece.column_N + number * columns, piece.value_N
    return Entries(begins[:: len(pieces)], column_N, value_N)


def room_for(rows: int, most: int, dtype: torch.dtype) -> "choosing.Room":
    """For as many entries as there can be. Memory that is not written to is none."""
    integer = torch.int32 if most <= NARROW else torch.int64
    offsets, columns = torch.empty(rows + 1, dtype=integer), torch.empty(most, dtype=integer)
    return _arrays(Entries(offsets, columns, torch.empty(most, dtype=dtype)))


def _arrays(entries: Entries) -> "choosing.Room":
    return entries.offsets.numpy(), entries.column_N.numpy(), entries.value_N.numpy()


def listed(room: "choosing.Room", count: int) -> Entries:
    """The entries that fill so much of the room."""
    offsets, columns, values = room
    return Entries(*(torch.from_numpy(part) for part in (offsets, columns[:count].copy(), values[:count].copy())))


def parts_of(values: Tensor, widths: Sequence[int], counts: Sequence[int]) -> "choosing.Parts":
    """Where each part begins, each part's count, and room for a row's values, also as integers."""
    bounds = _bounds(tuple(widths))
    room = torch.empty(int(bounds[-1]) + cpu.choosing.VECTORS, dtype=values.dtype).numpy()
    return bounds, np.array(counts), room, room.view(f"i{room.itemsize}")


@lru_cache(64)
def _bounds(widths: tuple[int, ...]) -> NDArray[Any]:
    return np.concatenate([[0], np.cumsum(widths)])
