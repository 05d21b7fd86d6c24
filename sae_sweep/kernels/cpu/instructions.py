"""What numba has no word for but LLVM, which it compiles with, has: vectors that are packed or summed in registers."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

LANES = 16
"""Numbers that are looked at together."""
TILE_ROWS, TILE_VECTORS = 6, 4
"""Products that are summed at the same time, rows and vectors of them: 24 of the 32 registers of AVX-512."""
PANEL_BYTES = 256
"""Of as many columns, in as many vectors."""
WIDE = bool(get_host_cpu_features().get("avx512f"))
"""Whether this CPU has AVX-512."""


def _smallest_packed() -> int:
    if get_host_cpu_features().get("avx512vbmi2"):
        return 1
    return 4 if WIDE else 2**31 - 1


SMALLEST_PACKED = _smallest_packed()
"""Bytes that a number must have at least for this CPU to have that instruction. Without it LLVM writes a branch for
each number, which takes longer than a loop without any."""


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
