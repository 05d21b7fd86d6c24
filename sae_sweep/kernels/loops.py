"""Loops over single numbers, compiled by numba for the CPU they run on: what torch and numpy can only say in several
passes over memory, or by sorting.

They take numpy arrays and write into those they are given: of a sparse matrix `offsets` [R + 1], where each row begins
among the entries, and the entries' `columns` and `values`, which have room for all of the matrix. Other threads run
meanwhile.

Two habits make them fast. A number that may or may not be kept is always written, and only the count says whether the
next one takes its place: a branch would be guessed wrong. And what is rare is looked for eight at a time, as the bytes
of a word.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numba import njit, uint64
from numpy.typing import NDArray

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Array = NDArray[Any]
Whole = Any
"""A whole number: Python's, or one of so many bits in a loop."""
Room = tuple[Array, Array, Array]
"""For offsets, columns and values."""
Flags = tuple[Array, Array, Array]
"""A byte for each column, the same memory as words of eight of them, and room for the places of words."""

CAUTION = 0.8
"""A row's cut times this is where the next row's candidates are looked for."""


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, compiled for each dtype when it is first called with it, and kept on disk where that can be."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # there is no folder that this user may write to
        return njit(nogil=True, error_model="numpy")(function)


@compiled
def above(z_RF: Array, bias_F: Array | None, floor_F: Array, offsets: Array, columns: Array, values: Array) -> Whole:
    """List the numbers z + bias above their column's floor; how many they are."""
    flags = _flags(z_RF.shape[1])
    bytes_F, _, _ = flags
    count: Whole = uint64(0)
    offsets[0] = 0
    for row in range(z_RF.shape[0]):
        z_F = z_RF[row]
        for column in range(z_F.size):
            bytes_F[column] = _number(z_F, bias_F, column) > floor_F[column]
        count = _list(z_F, bias_F, flags, columns, values, count)
        offsets[row + 1] = count
    return count


@compiled
def largest_of_rows(
    z_RF: Array,
    bias_F: Array,
    bounds: Array,
    counts: Array,
    room: Array,
    room_bits: Array,
    offsets: Array,
    columns: Array,
    values: Array,
) -> Whole:
    """List each row's counts[m] largest z + bias among columns bounds[m] to bounds[m + 1] for each m, but none that is
    not above 0; how many they are. Of equal ones the first are taken.

    `room` is for the numbers of a row, and `room_bits` is the same memory as integers.
    """
    flags = _flags(z_RF.shape[1])
    places = np.empty(z_RF.shape[1], np.int32)
    floors = np.zeros(counts.size, z_RF.dtype)
    count: Whole = uint64(0)
    offsets[0] = 0
    for row in range(z_RF.shape[0]):
        for part in range(counts.size):
            z_F, own_bias_F = z_RF[row, bounds[part] : bounds[part + 1]], bias_F[bounds[part] : bounds[part + 1]]
            floor = floors[part]
            found = _candidates(z_F, own_bias_F, floor, flags, places, room)
            while found < counts[part] and floor > 0:  # at worst all that are above 0
                floor = z_RF.dtype.type(floor / 2 if floor == floors[part] else 0)
                found = _candidates(z_F, own_bias_F, floor, flags, places, room)
            cut, reaching = _cut(room_bits[:found], counts[part])
            chosen = (places, room, room_bits, found, cut, reaching - counts[part])
            count = _keep(chosen, bounds[part], columns, values, count)
            room_bits[0] = cut
            floors[part] = z_RF.dtype.type(room[0] * CAUTION)
        offsets[row + 1] = count
    return count


@compiled
def largest_of_entries(
    given_offsets: Array,
    given_columns: Array,
    given_values: Array,
    bounds: Array,
    counts: Array,
    room: Array,
    room_bits: Array,
    out: Room,
) -> Whole:
    """The same of numbers that are listed already, each row's by column; `out` are offsets, columns and values."""
    offsets, columns, values = out
    places = np.empty(room.size, np.int32)
    count: Whole = uint64(0)
    offsets[0] = 0
    for row in range(offsets.size - 1):
        entry, end = given_offsets[row], given_offsets[row + 1]
        for part in range(counts.size):
            found = 0
            while entry < end and given_columns[entry] < bounds[part + 1]:
                places[found] = given_columns[entry]
                room[found] = given_values[entry]
                found += given_values[entry] > 0
                entry += 1
            cut, reaching = _cut(room_bits[:found], counts[part])
            chosen = (places, room, room_bits, found, cut, reaching - counts[part])
            count = _keep(chosen, 0, columns, values, count)
        offsets[row + 1] = count
    return count


@compiled
def keep_above(offsets: Array, columns: Array, values: Array, floor_F: Array, inclusive: bool) -> Whole:
    """Of the numbers that are listed keep, in place, those above their column's floor, or at it too; how many."""
    count: Whole = uint64(0)
    begin = offsets[0]
    for row in range(offsets.size - 1):
        end = offsets[row + 1]
        for entry in range(begin, end):
            column, value = columns[entry], values[entry]
            columns[count] = column
            values[count] = value
            count += uint64(value > floor_F[column] or (inclusive and value == floor_F[column]))
        begin = end
        offsets[row + 1] = count
    return count


@compiled
def transpose(offsets: Array, columns: Array, by_column: Array, entries: Array, rows: Array) -> None:
    """A sparse matrix by column: where each column begins [F + 1], and which entries [N] it has, of which rows [N], in
    their order."""
    by_column[:] = 0
    for entry in range(columns.size):
        by_column[columns[entry] + 1] += 1
    for column in range(1, by_column.size):
        by_column[column] += by_column[column - 1]
    next_place = by_column[:-1].copy()
    for row in range(offsets.size - 1):
        for entry in range(offsets[row], offsets[row + 1]):
            place = next_place[columns[entry]]
            next_place[columns[entry]] += 1
            entries[place] = entry
            rows[place] = row


@compiled
def ordered_sums(values: Array, order: Array, offsets: Array, ordered: Array, sums: Array) -> None:
    """Values in another order [N], and the sum of each consecutive run of them [len(offsets) - 1]."""
    for run in range(sums.size):
        total = values.dtype.type(0)
        for place in range(offsets[run], offsets[run + 1]):
            value = values[order[place]]
            ordered[place] = value
            total += value
        sums[run] = total


@compiled
def _flags(columns: int) -> Flags:
    """All 0."""
    words = np.zeros(columns // 8 + 1, np.uint64)
    return words.view(np.uint8), words, np.empty(words.size, np.int32)


@compiled
def _number(z_F: Array, bias_F: Array | None, column: int) -> Any:
    return z_F[column] if bias_F is None else z_F[column] + bias_F[column]  # which of the two is known when compiled


@compiled
def _list(z_F: Array, bias_F: Array | None, flags: Flags, columns: Array, values: Array, count: Whole) -> Whole:
    """Append the numbers of a row whose flag is 1; how many are listed then."""
    bytes_F, words, hits = flags
    whole = z_F.size // 8
    found = 0
    for word in range(whole):
        hits[found] = word
        found += words[word] != 0
    for hit in range(found):
        first = 8 * np.int64(hits[hit])
        for column in range(first, first + 8):
            columns[count] = column
            values[count] = _number(z_F, bias_F, column)
            count += uint64(bytes_F[column])
    for column in range(8 * whole, z_F.size):
        columns[count] = column
        values[count] = _number(z_F, bias_F, column)
        count += uint64(bytes_F[column])
    return count


@compiled
def _candidates(z_F: Array, bias_F: Array, floor: float, flags: Flags, places: Array, room: Array) -> Whole:
    """Write the numbers z + bias of a row above a floor, and their columns; how many they are."""
    bytes_F, _, _ = flags
    for column in range(z_F.size):
        bytes_F[column] = _number(z_F, bias_F, column) > floor
    return np.int64(_list(z_F, bias_F, flags, places, room, uint64(0)))


@compiled
def _cut(bits: Array, wanted: Whole) -> tuple[Whole, Whole]:
    """What `wanted` of some integers reach, or more of which the smallest are equal to it; and how many do. 0 where
    there are fewer. The bits of numbers above 0 are such integers, in the numbers' order.

    By bisection: counting takes no branch, and is over as soon as the count is right.
    """
    reaching = bits.size
    if reaching < wanted:
        return np.int64(0), reaching
    least, greatest = bits[0], bits[0]
    for value in bits:
        least, greatest = min(least, value), max(greatest, value)
    low, high = np.int64(least), np.int64(greatest)
    while low < high and reaching != wanted:
        middle = low + (high - low + 1) // 2
        between = _count_reaching(bits, bits.dtype.type(middle))
        if between >= wanted:
            low, reaching = middle, between
        else:
            high = middle - 1
    return low, reaching


@compiled
def _count_reaching(values: Array, floor: float) -> Whole:
    count = np.int32(0)  # no wider than what is compared, or fewer are compared at once
    for value in values:
        count = np.int32(count + (value >= floor))
    return np.int64(count)


@compiled
def _keep(
    chosen: tuple[Array, Array, Array, Whole, Whole, Whole], first: Whole, columns: Array, values: Array, count: Whole
) -> Whole:
    """Append the numbers in the room that reach the cut, without the last of those equal to it if they are too many;
    how many are listed then."""
    places, room, room_bits, found, cut, too_many = chosen
    if too_many <= 0:
        for place in range(found):
            columns[count] = first + places[place]
            values[count] = room[place]
            count += uint64(room_bits[place] >= cut)
        return count
    equal = -too_many  # how many of them there is room for
    for place in range(found):
        equal += room_bits[place] == cut
    for place in range(found):
        is_equal = room_bits[place] == cut
        columns[count] = first + places[place]
        values[count] = room[place]
        count += uint64(room_bits[place] > cut or (is_equal and equal > 0))
        equal -= is_equal
    return count
