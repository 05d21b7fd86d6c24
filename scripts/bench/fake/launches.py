"""What each Triton kernel loads and stores, in bytes, given a launch: (grid, arguments, constants, filled) to `Moved`.
Tests count the loads and stores of the same launches where Triton interprets them.

`filled` is the share of lists that holds entries. What all programs load, a row or a list that the one before has just
read, is in `cached`: no time is counted for it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor


class Moved(NamedTuple):
    """Bytes of one launch."""

    read: int
    written: int
    cached: int = 0
    """Read again."""


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _lists(index: Tensor, weight: Tensor | None, offsets: Tensor, filled: float) -> tuple[int, int]:
    """How many entries there are, and bytes of their lists; each end of a bag is read as an end and as a beginning."""
    entries = round(index.numel() * filled)
    of_each = index.element_size() + (0 if weight is None else weight.element_size())
    return entries, entries * of_each + 2 * (len(offsets) - 1) * offsets.element_size()


def _row_sums(grid: Any, arguments: Any, _: Any, filled: float) -> Moved:
    table, index, weight, offsets, out = arguments[:5]
    entries, lists = _lists(index, weight, offsets, filled)
    return Moved(entries * out.shape[1] * table.element_size() + lists, _bytes(out), (grid[1] - 1) * lists)


def _products(_: Any, arguments: Any, constants: Any, filled: float) -> Moved:
    left, right, index, offsets, out = arguments[:5]
    entries, lists = _lists(index, None, offsets, filled)
    batches = -(-entries // (len(left) * constants["ENTRIES"])) * len(left)  # of rows that have equally many
    rows = entries * right.shape[1] * right.element_size()
    again = max(0, batches - len(left)) * left.shape[1] * left.element_size()
    return Moved(rows + _bytes(left) + lists, entries * out.element_size(), again)


def _row_top(_: Any, arguments: Any, constants: Any, __: float) -> Moved:
    bits, columns, smallest = arguments[:3]
    return Moved((constants["BITS"] // 8 + 1) * _bytes(bits), _bytes(columns) + _bytes(smallest))


def _count_digits(grid: Any, arguments: Any, _: Any, __: float) -> Moved:
    return Moved(_bytes(arguments[0]) + 8, 0, (grid[0] - 1) * 8)


def _pick_digit(_: Any, arguments: Any, constants: Any, __: float) -> Moved:
    last = arguments[3].element_size() if constants["SHIFT"] == 0 else 0
    return Moved(256 * 8 + 16, 16 + last)


def _count_above(_: Any, arguments: Any, __: Any, ___: float) -> Moved:
    values, floor, counts = arguments[:3]
    return Moved(_bytes(values) + _bytes(floor), _bytes(counts), values.numel() * floor.element_size() - _bytes(floor))


def _write_above(_: Any, arguments: Any, __: Any, filled: float) -> Moved:
    values, floor, offsets, columns, out = arguments[:5]
    entries = round(columns.numel() * filled)
    again = values.numel() * floor.element_size() - _bytes(floor)
    read = _bytes(values) + _bytes(floor) + (len(offsets) - 1) * offsets.element_size()
    return Moved(read, entries * (columns.element_size() + out.element_size()), again)


def _gradient(arguments: Any, constants: Any, filled: float) -> Moved:
    """Of making every row of a gradient."""
    table, index, weight, offsets, factor, subtracted, added = arguments[:7]
    latents, width = len(offsets) - 1, arguments[8]
    entries, lists = _lists(index, weight, offsets, filled)
    read = entries * width * table.element_size() + lists
    cached = 0
    if constants["SUBTRACTS"]:
        read += latents * factor.element_size()
        cached = latents * width * subtracted.element_size()
    return Moved(read + (latents * width * added.element_size() if constants["ADDS"] else 0), 0, cached)


def _row_norms(_: Any, arguments: Any, constants: Any, filled: float) -> Moved:
    made, (rows, out) = _gradient(arguments, constants, filled), arguments[9:11]
    return Moved(made.read + (_bytes(rows) if constants["UNIT"] else 0), _bytes(out), made.cached)


def _update_row(grid: Any, arguments: Any, constants: Any, filled: float) -> Moved:
    made, state = _gradient(arguments, constants, filled), sum(map(_bytes, arguments[9:12]))
    scale, lost = arguments[12:14]
    return Moved(made.read + state, state, made.cached + grid[0] * (scale.element_size() + lost.element_size()))


BYTES: dict[str, Callable[[Any, Any, Any, float], Moved]] = {
    each.__name__: each
    for each in (
        *(_row_sums, _products, _row_top, _count_digits, _pick_digit),
        *(_count_above, _write_above, _row_norms, _update_row),
    )
}
"""By kernel."""
