"""What each Triton kernel loads and stores, in bytes, given a launch: (grid, arguments, constants, held) to `Moved`.
Tests count the loads and stores of the same launches where Triton interprets them.

`held` says how many entries are in a list with so much room. What all programs load, a row or a list that the one
before has just read, is in `cached`: no time is counted for it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

Held = Callable[[int], int]


class Moved(NamedTuple):
    """Bytes of one launch."""

    read: int
    written: int
    cached: int = 0
    """Read again."""


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _lists(index: Tensor, weight: Tensor | None, offsets: Tensor, held: Held) -> tuple[int, int]:
    """How many entries there are, and bytes of their lists; each end of a bag is read as an end and as a beginning."""
    entries = held(index.numel())
    of_each = index.element_size() + (0 if weight is None else weight.element_size())
    return entries, entries * of_each + 2 * (len(offsets) - 1) * offsets.element_size()


def _row_sums(grid: Any, arguments: Any, _: Any, held: Held) -> Moved:
    table, index, weight, offsets, out = arguments[:5]
    entries, lists = _lists(index, weight, offsets, held)
    return Moved(entries * out.shape[1] * table.element_size() + lists, _bytes(out), (grid[1] - 1) * lists)


def _row_sum_pairs(grid: Any, arguments: Any, constants: Any, held: Held) -> Moved:
    table, index, weight, other, offsets, out = arguments[:6]
    one = _row_sums(grid, (table, index, weight, offsets, out), constants, held)
    more = held(index.numel()) * other.element_size()
    return Moved(one.read + more, 2 * one.written, one.cached + (grid[1] - 1) * more)


def _pairs(_: Any, arguments: Any, constants: Any, held: Held) -> Moved:
    left, other, right, index, offsets, out = arguments[:6]
    one = _products(None, (left, right, index, offsets, out), constants, held)
    return Moved(one.read + _bytes(other), 2 * one.written, 2 * one.cached)


def _products(_: Any, arguments: Any, constants: Any, held: Held) -> Moved:
    left, right, index, offsets, out = arguments[:5]
    entries, lists = _lists(index, None, offsets, held)
    batches = -(-entries // (len(left) * constants["ENTRIES"])) * len(left)  # of rows that have equally many
    rows = entries * right.shape[1] * right.element_size()
    again = max(0, batches - len(left)) * left.shape[1] * left.element_size()
    return Moved(rows + _bytes(left) + lists, entries * out.element_size(), again)


def _row_top(_: Any, arguments: Any, constants: Any, __: Held) -> Moved:
    bits, columns, smallest = arguments[:3]
    return Moved((constants["BITS"] // 8 + 1) * _bytes(bits), _bytes(columns) + _bytes(smallest))


def _count_digits(grid: Any, arguments: Any, _: Any, __: Held) -> Moved:
    return Moved(_bytes(arguments[0]) + 8, 0, (grid[0] - 1) * 8)


def _pick_digit(_: Any, arguments: Any, constants: Any, __: Held) -> Moved:
    last = arguments[3].element_size() if constants["SHIFT"] == 0 else 0
    return Moved(256 * 8 + 16, 16 + last)


def _count_above(_: Any, arguments: Any, __: Any, ___: Held) -> Moved:
    values, floor, counts = arguments[:3]
    return Moved(_bytes(values) + _bytes(floor), _bytes(counts), values.numel() * floor.element_size() - _bytes(floor))


def _write_above(_: Any, arguments: Any, __: Any, held: Held) -> Moved:
    values, floor, offsets, columns, out = arguments[:5]
    entries = held(columns.numel())
    again = values.numel() * floor.element_size() - _bytes(floor)
    read = _bytes(values) + _bytes(floor) + (len(offsets) - 1) * offsets.element_size()
    return Moved(read, entries * (columns.element_size() + out.element_size()), again)


def _gradient(arguments: Any, constants: Any, held: Held) -> Moved:
    """Of making every row of a gradient."""
    table, index, weight, offsets, factor, subtracted, added = arguments[:7]
    latents, width = len(offsets) - 1, arguments[8]
    entries, lists = _lists(index, weight, offsets, held)
    read = entries * width * table.element_size() + lists
    cached = 0
    if constants["SUBTRACTS"]:
        read += latents * factor.element_size()
        cached = latents * width * subtracted.element_size()
    return Moved(read + (latents * width * added.element_size() if constants["ADDS"] else 0), 0, cached)


def _row_norms(_: Any, arguments: Any, constants: Any, held: Held) -> Moved:
    made, (rows, out) = _gradient(arguments, constants, held), arguments[9:11]
    return Moved(made.read + (_bytes(rows) if constants["UNIT"] else 0), _bytes(out), made.cached)


def _update_row(grid: Any, arguments: Any, constants: Any, held: Held) -> Moved:
    made, state = _gradient(arguments, constants, held), sum(map(_bytes, arguments[9:12]))
    scale, lost = arguments[12:14]
    return Moved(made.read + state, state, made.cached + grid[0] * (scale.element_size() + lost.element_size()))


def _half_row(_: Any, arguments: Any, constants: Any, __: Held) -> Moved:
    rows, bias, pre, floor, member, out, offsets = arguments[:7]
    of_latents = [(bias, constants["BIAS"]), (floor, constants["FLOOR"]), (member, constants["PRE"])]
    read = _bytes(rows) + sum(len(rows) * each.element_size() for each, there in of_latents if there)
    cached = rows.numel() * pre.element_size() if constants["PRE"] else 0
    return Moved(read, _bytes(out) + _bytes(offsets), cached)


def _half_input(grid: Any, arguments: Any, _: Any, __: Held) -> Moved:
    inputs, largest, out, scale = arguments[:4]
    return Moved(_bytes(inputs), _bytes(out) + _bytes(scale), grid[0] * _bytes(largest))


def _count_kept(_: Any, arguments: Any, __: Any, held: Held) -> Moved:
    offsets, kept, counts = arguments[:3]
    return Moved(held(len(kept)) + 2 * len(counts) * offsets.element_size(), _bytes(counts))


def _write_kept(grid: Any, arguments: Any, _: Any, held: Held) -> Moved:
    offsets, column, value, kept, ends, columns, out = arguments[:7]
    entries = held(len(columns))
    read = held(len(kept)) + grid[0] * (2 * offsets.element_size() + ends.element_size())
    one = value.element_size() + column.element_size()
    return Moved(read + entries * one, entries * (out.element_size() + columns.element_size()))


def _row_smallest(_: Any, arguments: Any, constants: Any, __: Held) -> Moved:
    bits, smallest = arguments[:2]
    return Moved((1 if constants["WHOLE"] else constants["BITS"] // 8) * _bytes(bits), _bytes(smallest))


def _keep_largest(grid: Any, arguments: Any, constants: Any, held: Held) -> Moved:
    offsets, columns, bits = arguments[:3]
    once = held(len(columns)) * (columns.element_size() + bits.element_size())
    return Moved(once + 2 * grid[0] * offsets.element_size(), held(len(columns)), once * (constants["BITS"] // 8))


def _errors(grid: Any, arguments: Any, constants: Any, held: Held) -> Moved:
    rows, index, weight, offsets, bias, target, out = arguments[:7]
    one = _row_sums(grid, (rows, index, weight, offsets, out.flatten(0, 1)), constants, held)
    of_targets = out.numel() * target.element_size()
    cached = out.numel() * bias.element_size() + of_targets - _bytes(target)
    return Moved(one.read + _bytes(target), one.written, one.cached + cached)


def _products_and_sums(_: Any, arguments: Any, __: Any, held: Held) -> Moved:
    table, rows, index, weight, order, offsets, products, out = arguments[:8]
    entries, lists = _lists(index, weight, offsets, held)
    read = entries * (rows.shape[1] * table.element_size() + order.element_size()) + lists + _bytes(rows)
    return Moved(read, entries * products.element_size() + _bytes(out))


BYTES: dict[str, Callable[[Any, Any, Any, Held], Moved]] = {
    each.__name__: each
    for each in (
        *(_row_sums, _products, _row_sum_pairs, _pairs, _row_top, _count_digits, _pick_digit),
        *(_count_above, _write_above, _row_norms, _update_row, _half_row, _half_input, _count_kept, _write_kept),
        *(_row_smallest, _keep_largest, _errors, _products_and_sums),
    )
}
"""By kernel."""
