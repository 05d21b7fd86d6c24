"""Loops that choose numbers of a matrix, row by row, and list them.

They write into what they are given (`Room`): where each row begins among the entries, and the entries' columns and
values, which have room for all of the matrix.

What makes them fast is that no branch has to be guessed: a number that may or may not be kept is always written, and
only the count says whether the next one takes its place. Where the CPU has an instruction for it, sixteen are looked at
together (`instructions.py`).
"""

import numpy as np
from numba import uint64

from sae_sweep.kernels.cpu.compiling import Array, Whole, compiled
from sae_sweep.kernels.cpu.instructions import LANES, SMALLEST_PACKED, pack

Room = tuple[Array, Array, Array]
"""For offsets [R + 1], columns and values."""
Parts = tuple[Array, Array, Array, Array]
"""Of a row: where each begins and the last ends, each one's count; and room for a row's numbers, and the same memory as
integers."""

CAUTION = 0.8
"""A row's cut times this is where the next row's candidates are looked for."""
CAUTION_BITS = 41
"""The same as a difference of bfloat16's bits, 128 of which halve a number."""
VECTORS = 64
"""Integers that are counted together."""


@compiled
def above(z_RF: Array, bias_F: Array, floor_F: Array, out: Room) -> Whole:
    """List the numbers z + bias above their column's floor; how many they are."""
    out[0][0] = 0
    return list_above(z_RF, bias_F, floor_F, out, 0, 0)


@compiled
def list_above(z_RF: Array, bias_F: Array, floor_F: Array, out: Room, first: Whole, count: Whole) -> Whole:
    """Go on with rows `first`, `first` + 1, ...; how many are listed then."""
    offsets, columns, values = out
    for row in range(z_RF.shape[0]):
        count = _append(z_RF[row], bias_F, floor_F, columns, values, count)
        offsets[first + row + 1] = count
    return count


@compiled
def largest_of_rows(z_RF: Array, bias_F: Array, parts: Parts, out: Room) -> Whole:
    """List each row's counts[m] largest z + bias among columns bounds[m] to bounds[m + 1] for each m, but none that is
    not above 0; how many they are. Of equal ones the first are taken."""
    out[0][0] = 0
    return list_largest(z_RF, bias_F, parts, np.zeros(z_RF.shape[1], z_RF.dtype), out, 0, 0)


@compiled
def list_largest(
    z_RF: Array, bias_F: Array, parts: Parts, floors_F: Array, out: Room, first: Whole, listed: Whole
) -> Whole:
    """Go on with rows `first`, `first` + 1, ...; how many are listed then. `floors_F` are those of the row before."""
    bounds, counts, room, room_bits = parts
    offsets, columns, values = out
    places = np.empty(room.size, np.int32)
    count: Whole = uint64(listed)
    for row in range(z_RF.shape[0]):
        for part in range(counts.size):
            z_F, own_bias_F = z_RF[row, bounds[part] : bounds[part + 1]], bias_F[bounds[part] : bounds[part + 1]]
            floor_F = floors_F[bounds[part] : bounds[part + 1]]
            found = _append(z_F, own_bias_F, floor_F, places, room, 0)
            for attempt in range(2):  # at worst all that are above 0
                if found < counts[part] and floor_F[0] > 0:
                    floor_F[:] = floor_F[0] / 2 if attempt == 0 else 0
                    found = _append(z_F, own_bias_F, floor_F, places, room, 0)
            cut, reaching = _cut(room_bits, found, counts[part])
            chosen = (places, room, room_bits, found, cut, reaching - counts[part])
            count = _keep(chosen, bounds[part], columns, values, count)
            room_bits[0] = cut
            floor_F[:] = z_RF.dtype.type(room[0] * CAUTION)
        offsets[first + row + 1] = count
    return np.int64(count)


@compiled
def largest_of_entries(
    given_offsets: Array, given_columns: Array, given_values: Array, parts: Parts, out: Room
) -> Whole:
    """The same of numbers that are listed already, each row's by column."""
    bounds, counts, room, room_bits = parts
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
            cut, reaching = _cut(room_bits, found, counts[part])
            chosen = (places, room, room_bits, found, cut, reaching - counts[part])
            count = _keep(chosen, 0, columns, values, count)
        offsets[row + 1] = count
    return count


@compiled
def likely_largest(bits_RF: Array, slack_R: Array, up: float, parts: Parts, out: Room) -> Whole:
    """List, of upper bounds' bits in bfloat16, those whose numbers may be among the ones that `largest_of_rows` lists;
    how many they are.

    A number is at most its bound times `up`, and at least the bound over `up` less the row's slack.
    """
    bounds, counts, room, _ = parts
    offsets, columns, values = out
    none_F = np.zeros(bits_RF.shape[1], bits_RF.dtype)
    floors_F = none_F.copy()
    places = np.empty(room.size, np.int32)
    word = np.zeros(1, np.int32)
    number = word.view(np.float32)
    count: Whole = uint64(0)
    offsets[0] = 0
    for row in range(bits_RF.shape[0]):
        for part in range(counts.size):
            first, end = bounds[part], bounds[part + 1]
            bits_F, floor_F = bits_RF[row, first:end], floors_F[first:end]
            found = _append(bits_F, none_F[first:end], floor_F, places, room, 0)
            if found < counts[part] and floor_F[0] > 0:
                floor_F[:] = 0
                found = _append(bits_F, none_F[first:end], floor_F, places, room, 0)
            word[0] = _cut(room, found, counts[part])[0] << 16
            reached = number[0] / up - slack_R[row]  # by as many numbers of the row
            number[0] = max(reached / up, 0)
            least = max(word[0] >> 16, 1)
            if least <= floor_F[0]:
                floor_F[:] = least - 1
                found = _append(bits_F, none_F[first:end], floor_F, places, room, 0)
            for place in range(found):
                columns[count] = first + places[place]
                values[count] = room[place]
                count += uint64(room[place] >= least)
            floor_F[:] = max(least - 1 - CAUTION_BITS, 0)
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
def _append(z_F: Array, bias_F: Array, floor_F: Array, columns: Array, values: Array, count: Whole) -> Whole:
    """Append the numbers z + bias of a row that are above their column's floor; how many are listed then."""
    packed = z_F.size - z_F.size % LANES if z_F.itemsize >= SMALLEST_PACKED else 0
    for first in range(0, packed, LANES):
        count = pack(z_F, bias_F, floor_F, first, columns, values, count)
    end: Whole = uint64(count)
    for column in range(packed, z_F.size):
        number = z_F.dtype.type(z_F[column] + bias_F[column])
        columns[end] = column
        values[end] = number
        end += uint64(number > floor_F[column])
    return np.int64(end)


@compiled
def _cut(bits: Array, found: Whole, wanted: Whole) -> tuple[Whole, Whole]:
    """What `wanted` of the first `found` integers reach, or more of which the smallest are equal to it; and how many
    do. 0 where there are fewer. The bits of numbers above 0 are such integers, in the numbers' order.

    By bisection: counting takes no branch, and is over as soon as the count is right. There is room behind them.
    """
    reaching = found
    if reaching < wanted:
        return np.int64(0), reaching
    padded = bits[: found + -found % VECTORS]
    padded[found:] = 0  # which reaches nothing that is asked for, and leaves no number to count by itself
    least = greatest = bits[0]
    for place in range(found):
        least, greatest = min(least, bits[place]), max(greatest, bits[place])
    low, high = np.int64(least), np.int64(greatest)
    while low < high and reaching != wanted:
        middle = low + (high - low + 1) // 2
        between = _count_reaching(padded, bits.dtype.type(middle))
        if between >= wanted:
            low, reaching = middle, between
        else:
            high = middle - 1
    return low, reaching


@compiled
def _count_reaching(values: Array, floor: float) -> Whole:
    count = np.int32(0)  # no wider than what is compared, or fewer are compared at once
    for place in range(values.size):  # compiled to three times as fast code as `for value in values`
        count = np.int32(count + np.int32(values[place] >= floor))
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
