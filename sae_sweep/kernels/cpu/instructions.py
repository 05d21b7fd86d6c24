"""What numba has no word for but LLVM, which it compiles with, has: vectors that are packed."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

LANES = 16
"""Numbers that are looked at together."""


def _smallest_packed() -> int:
    if get_host_cpu_features().get("avx512vbmi2"):
        return 1
    return 4 if get_host_cpu_features().get("avx512f") else 2**31 - 1


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


def _everywhere(builder: ir.IRBuilder, number: ir.Value, lanes: int) -> ir.Value:
    """A number in each lane of a vector."""
    nothing = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    alone = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(alone, nothing, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))
