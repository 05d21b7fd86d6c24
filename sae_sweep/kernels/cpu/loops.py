"""Loops over single numbers: what torch and numpy can only say in several passes over memory, or by sorting. Those that
choose are in `choosing.py`.

They take numpy arrays and write into those they are given. Other threads run meanwhile.
"""

from functools import partial

from sae_sweep.kernels.cpu.compiling import Array, compiled

Pair = tuple[Array, Array]


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
def count_positive(values: Array, columns: Array, counts: Array) -> None:
    """Add to each column's count how many of its values are above 0."""
    for entry in range(values.size):
        counts[columns[entry]] += values[entry] > 0


@partial(compiled, reorder=True)
def remove_radial(gradient_FD: Array, unit_FD: Array) -> None:
    """Take out of each row of a gradient its component along a unit row."""
    for row in range(gradient_FD.shape[0]):
        gradient_D, unit_D = gradient_FD[row], unit_FD[row]
        radial = gradient_FD.dtype.type(0)
        for column in range(gradient_D.size):
            radial += gradient_D[column] * unit_D[column]
        for column in range(gradient_D.size):
            gradient_D[column] -= radial * unit_D[column]


@partial(compiled, reorder=True)
def sampled_products(offsets: Array, columns: Array, left_RD: Array, right_FD: Array, products: Array) -> None:
    """Of each row's entries, left[row] . right[column]."""
    for row in range(offsets.size - 1):
        left_D = left_RD[row]
        for entry in range(offsets[row], offsets[row + 1]):
            right_D = right_FD[columns[entry]]
            total = left_RD.dtype.type(0)
            for place in range(right_D.size):
                total += left_D[place] * right_D[place]
            products[entry] = total


@partial(compiled, reorder=True)
def sampled_pairs(offsets: Array, columns: Array, lefts: Pair, right_FD: Array, products: Pair) -> None:
    """The same of two left sides; each right row is read once."""
    for row in range(offsets.size - 1):
        left_D, other_D = lefts[0][row], lefts[1][row]
        for entry in range(offsets[row], offsets[row + 1]):
            right_D = right_FD[columns[entry]]
            total = other = right_FD.dtype.type(0)
            for place in range(right_D.size):
                total += left_D[place] * right_D[place]
                other += other_D[place] * right_D[place]
            products[0][entry] = total
            products[1][entry] = other


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
