"""Loops that choose numbers of a matrix, row by row, and list them.

They write into what they are given: `offsets` [R + 1], where each row begins among the entries, and the entries'
`columns` and `values`, which have room for all of the matrix.

What makes them fast is that no branch has to be guessed: a number that may or may not be kept is always written, and
only the count says whether the next one takes its place. Where the CPU has an instruction for it, sixteen are looked at
together; numba has no word for that, but LLVM has, which it compiles with.

Products of small matrices are chosen from while they are made, a few rows at a time, before they leave the core's
cache: that takes two thirds of the time of a library's product and a look at what it wrote. All is in one file since a
compiled loop is kept on disk until its own file changes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types, uint64
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from sae_sweep.kernels.loops import Array, Whole, compiled

Room = tuple[Array, Array, Array]
"""For offsets, columns and values."""

CAUTION = 0.8
"""A row's cut times this is where the next row's candidates are looked for."""
CAUTION_BITS = 41
"""The same as a difference of bfloat16's bits, 128 of which halve a number."""
VECTORS = 64
"""Integers that are counted together."""
LANES = 16
"""Numbers that are looked at together."""
TILE_ROWS, TILE_VECTORS = 6, 4
"""Products that are summed at the same time, rows and vectors of them: 24 of the 32 registers of AVX-512."""
PANEL_BYTES = 256
"""Of as many columns, in as many vectors."""
PRODUCTS = 2**16
"""That are made before they are looked at: half of a core's own cache."""


WIDE = bool(get_host_cpu_features().get("avx512f"))
"""Whether this CPU has AVX-512."""


def _smallest_packed() -> int:
    if get_host_cpu_features().get("avx512vbmi2"):
        return 1
    return 4 if WIDE else 2**31 - 1


SMALLEST_PACKED = _smallest_packed()
"""Bytes that a number must have at least for this CPU to have that instruction. Without it LLVM writes a branch for
each number, which takes longer than a loop without any."""


@compiled
def above(z_RF: Array, bias_F: Array, floor_F: Array, offsets: Array, columns: Array, values: Array) -> Whole:
    """List the numbers z + bias above their column's floor; how many they are."""
    offsets[0] = 0
    return _list_above(z_RF, bias_F, floor_F, offsets, columns, values, 0)


@compiled
def products_above(
    x_RD: Array, panels: Array, bias_F: Array, floor_F: Array, offsets: Array, columns: Array, values: Array
) -> Whole:
    """The same where z are products of rows x and the columns that `panels` hold."""
    count: Whole = np.int64(0)
    offsets[0] = 0
    z_RF, last_RD = _room_for_products(x_RD, panels)
    for first in range(0, x_RD.shape[0], z_RF.shape[0]):
        rows = _multiply(x_RD, last_RD, first, panels, z_RF)
        count = _list_above(z_RF[:rows], bias_F, floor_F, offsets[first:], columns, values, count)
    return count


@compiled
def _list_above(
    z_RF: Array, bias_F: Array, floor_F: Array, offsets: Array, columns: Array, values: Array, count: Whole
) -> Whole:
    """List those of some rows, the first of which begins at offsets[0]; how many are listed then."""
    for row in range(z_RF.shape[0]):
        count = _append(z_RF[row], bias_F, floor_F, columns, values, count)
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
    floors_F = np.zeros(z_RF.shape[1], z_RF.dtype)
    offsets[0] = 0
    return _list_largest(z_RF, bias_F, bounds, counts, room, room_bits, floors_F, offsets, columns, values, 0)


@compiled
def largest_products(
    x_RD: Array,
    panels: Array,
    bias_F: Array,
    bounds: Array,
    counts: Array,
    room: Array,
    room_bits: Array,
    offsets: Array,
    columns: Array,
    values: Array,
) -> Whole:
    """The same where z are products of rows x and the columns that `panels` hold."""
    floors_F = np.zeros(bias_F.size, x_RD.dtype)
    count: Whole = np.int64(0)
    offsets[0] = 0
    z_RF, last_RD = _room_for_products(x_RD, panels)
    for first in range(0, x_RD.shape[0], z_RF.shape[0]):
        rows = _multiply(x_RD, last_RD, first, panels, z_RF)
        own = z_RF[:rows], bias_F, bounds, counts, room, room_bits, floors_F, offsets[first:]
        count = _list_largest(*own, columns, values, count)
    return count


@compiled
def _list_largest(
    z_RF: Array,
    bias_F: Array,
    bounds: Array,
    counts: Array,
    room: Array,
    room_bits: Array,
    floors_F: Array,
    offsets: Array,
    columns: Array,
    values: Array,
    listed: Whole,
) -> Whole:
    """List those of some rows, the first of which begins at offsets[0]; how many are listed then. `floors_F` are those
    of the row before."""
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
        offsets[row + 1] = count
    return np.int64(count)


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
            cut, reaching = _cut(room_bits, found, counts[part])
            chosen = (places, room, room_bits, found, cut, reaching - counts[part])
            count = _keep(chosen, 0, columns, values, count)
        offsets[row + 1] = count
    return count


@compiled
def likely_largest(
    bits_RF: Array, slack_R: Array, up: float, bounds: Array, counts: Array, room: Array, out: Room
) -> Whole:
    """List, of bounds in bfloat16, those of each row whose numbers may be among its counts[m] largest in columns
    bounds[m] to bounds[m + 1] for each m, and above 0; how many they are. `out` are offsets, columns and bits.

    A number is at most its bound times `up`, and at least the bound over `up` less the row's slack.
    """
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


@compiled
def fill_panels(W_FD: Array, panels: Array) -> None:
    """Lay out W [F, D] as panels [F / width, D, width]: so many columns of a product side by side."""
    for panel in range(panels.shape[0]):
        for column in range(panels.shape[2]):
            row_D = W_FD[panel * panels.shape[2] + column]
            for place in range(row_D.size):
                panels[panel, place, column] = row_D[place]


@compiled
def _room_for_products(x_RD: Array, panels: Array) -> tuple[Array, Array]:
    """For as many rows of products [.., F] as stay in a core's cache; and the rows x [TILE_ROWS, D] that fill no
    tile, below each other."""
    latents = panels.shape[0] * panels.shape[2]
    tiles = max(1, PRODUCTS // (TILE_ROWS * latents))
    last_RD = np.zeros((TILE_ROWS, x_RD.shape[1]), x_RD.dtype)
    left = x_RD.shape[0] % TILE_ROWS
    last_RD[:left] = x_RD[x_RD.shape[0] - left :]
    return np.empty((tiles * TILE_ROWS, latents), x_RD.dtype), last_RD


@compiled
def _multiply(x_RD: Array, last_RD: Array, first: Whole, panels: Array, z_RF: Array) -> Whole:
    """Products of the rows from `first` on, as many as there are and z has room for; how many those are. A panel
    stays in the cache closest to the core while the rows go by."""
    rows = min(z_RF.shape[0], x_RD.shape[0] - first)
    for panel in range(panels.shape[0]):
        for row in range(0, rows, TILE_ROWS):
            if first + row + TILE_ROWS <= x_RD.shape[0]:
                tile(x_RD, first + row, panels, panel, z_RF, row)
            else:
                tile(last_RD, 0, panels, panel, z_RF, row)
    return rows


def _pack(context: Any, z_F: Any, bias_F: Any, floor_F: Any, first: Any, columns: Any, values: Any, count: Any) -> Any:
    return types.int64(z_F, bias_F, floor_F, types.int64, columns, values, types.int64), _packed


pack: Callable[..., Any] = intrinsic(_pack)
"""pack(z_F, bias_F, floor_F, first, columns, values, count), in compiled loops only: append the numbers z + bias of
columns first to first + LANES that are above their column's floor, and their columns; how many are listed then."""


def _packed(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
    z_F, bias_F, floor_F, _, columns, values, _ = zip(signature.args, arguments, strict=True)
    first, count = arguments[3], arguments[6]

    def address(array: tuple[Any, ir.Value], index: ir.Value) -> ir.Value:
        kind, value = array
        return builder.gep(make_array(kind)(context, builder, value).data, [index])

    def loaded(array: tuple[Any, ir.Value]) -> ir.Value:
        number = context.get_value_type(array[0].dtype)
        lanes = builder.bitcast(address(array, first), ir.VectorType(number, LANES).as_pointer())
        return builder.load(lanes, align=context.get_abi_alignment(number))

    def append(lanes: ir.Value, array: tuple[Any, ir.Value]) -> None:
        pointer = lanes.type.element.as_pointer()
        letter = "f" if isinstance(array[0].dtype, types.Float) else "i"
        name = f"llvm.masked.compressstore.v{LANES}{letter}{array[0].dtype.bitwidth}"
        function = ir.FunctionType(ir.VoidType(), [lanes.type, pointer, chosen.type])
        store = builder.module.declare_intrinsic(name, (), function)
        builder.call(store, [lanes, address(array, count), chosen])

    if isinstance(z_F[0].dtype, types.Float):
        z = builder.fadd(loaded(z_F), loaded(bias_F))
        chosen = builder.fcmp_ordered(">", z, loaded(floor_F))
    else:
        z = builder.add(loaded(z_F), loaded(bias_F))
        chosen = builder.icmp_signed(">", z, loaded(floor_F))
    append(_counting(context, builder, first, columns[0].dtype), columns)
    append(z, values)
    bits = ir.IntType(LANES)
    ones = builder.call(builder.module.declare_intrinsic("llvm.ctpop", [bits]), [builder.bitcast(chosen, bits)])
    return builder.add(count, builder.zext(ones, count.type))


def _counting(context: Any, builder: ir.IRBuilder, first: ir.Value, kind: Any) -> ir.Value:
    """first, first + 1, ..., a lane each."""
    lanes = ir.VectorType(context.get_value_type(kind), LANES)
    everywhere = _everywhere(builder, context.cast(builder, first, types.int64, kind), LANES)
    return builder.add(everywhere, ir.Constant(lanes, list(range(LANES))))


def _tile(context: Any, x_RD: Any, x_row: Any, panels: Any, panel: Any, z_RF: Any, z_row: Any) -> Any:
    return types.void(x_RD, types.int64, panels, types.int64, z_RF, types.int64), _tiled


tile: Callable[..., Any] = intrinsic(_tile)
"""tile(x_RD, x_row, panels, panel, z_RF, z_row), in compiled loops only: products of TILE_ROWS rows of x and the
columns of a panel, to their places in z. All are summed at the same time, in registers, in the order of D."""


def _tiled(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
    _, x_row, _, panel, _, z_row = arguments
    arrays = [make_array(signature.args[at])(context, builder, arguments[at]) for at in (0, 2, 4)]
    (_, depth), (_, _, width), (_, latents) = (cgutils.unpack_tuple(builder, each.shape) for each in arrays)
    x_data, panel_data, z_data = (each.data for each in arrays)
    number = context.get_value_type(signature.args[0].dtype)
    lanes = PANEL_BYTES // TILE_VECTORS // context.get_abi_sizeof(number)
    vector, align = ir.VectorType(number, lanes), context.get_abi_alignment(number)
    places = [(row, part) for row in range(TILE_ROWS) for part in range(TILE_VECTORS)]

    def whole(value: int) -> ir.Constant:
        return ir.Constant(ir.IntType(64), value)

    def at(data: ir.Value, row: ir.Value, columns: ir.Value, column: ir.Value) -> ir.Value:
        return builder.gep(data, [builder.add(builder.mul(row, columns), column)])

    def vector_at(pointer: ir.Value, part: int) -> ir.Value:
        return builder.bitcast(builder.gep(pointer, [whole(part * lanes)]), vector.as_pointer())

    rows = [at(x_data, builder.add(x_row, whole(row)), depth, whole(0)) for row in range(TILE_ROWS)]
    panel_begin = at(panel_data, panel, builder.mul(depth, width), whole(0))
    before, loop, after = builder.block, builder.append_basic_block("sum"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    place = builder.phi(whole(0).type)
    sums = {each: builder.phi(vector) for each in places}
    begin = at(panel_begin, place, width, whole(0))
    weights = [builder.load(vector_at(begin, part), align=align) for part in range(TILE_VECTORS)]
    everywhere = [_everywhere(builder, builder.load(builder.gep(row, [place])), lanes) for row in rows]
    name = f"llvm.fma.v{lanes}f{signature.args[0].dtype.bitwidth}"
    fma = builder.module.declare_intrinsic(name, (), ir.FunctionType(vector, [vector] * 3))
    added = {(row, part): builder.call(fma, [everywhere[row], weights[part], sums[row, part]]) for row, part in places}
    next_place = builder.add(place, whole(1))
    for phi, first, following in (
        (place, whole(0), next_place),
        *((sums[p], ir.Constant(vector, None), added[p]) for p in places),
    ):
        phi.add_incoming(first, before)
        phi.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", next_place, depth), loop, after)
    builder.position_at_end(after)
    for row in range(TILE_ROWS):
        begin = at(z_data, builder.add(z_row, whole(row)), latents, builder.mul(panel, width))
        for part in range(TILE_VECTORS):
            builder.store(added[row, part], vector_at(begin, part), align=align)
    return context.get_dummy_value()


def _everywhere(builder: ir.IRBuilder, number: ir.Value, lanes: int) -> ir.Value:
    """A number in each lane of a vector."""
    nothing = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    alone = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(alone, nothing, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))
