from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_sweep.data.rows import BLOCK_ORDER, ROW_ORDER, RowReader, TokenStream, permutation

CONTEXT = 3


class Source:
    """Rows [n, n, n] for n below `length`, in chunks of the given sizes over and over."""

    def __init__(self, length: int, sizes: Any = (2, 3, 1)) -> None:
        self.length = length
        self.sizes = sizes
        self.opened = 0
        self.served = 0

    def __call__(self) -> Any:
        self.opened += 1
        start, turn = 0, 0
        while start < self.length:
            stop = min(self.length, start + self.sizes[turn % len(self.sizes)])
            self.served = stop
            yield np.repeat(np.arange(start, stop, dtype=np.int32)[:, None], CONTEXT, axis=1)
            start, turn = stop, turn + 1


def stream(source: Any, seed: int = 0, window_rows: int = 4, block_rows: int = 3, kept: bool = False) -> Any:
    return TokenStream(RowReader(source, CONTEXT, kept), seed, window_rows, block_rows)


def numbers(block: Any) -> Any:
    return block[0][:, 0].tolist()


@pytest.mark.parametrize("kept", [True, False])
def test_reads_at_any_place(kept: bool) -> None:
    reader = RowReader(Source(11), CONTEXT, kept)
    for start, stop in [(0, 2), (1, 5), (5, 5), (7, 11), (0, 11), (10, 20), (12, 20), (3, 4)]:
        rows = reader.read(start, stop)
        assert rows.shape == (len(range(start, min(stop, 11))), CONTEXT)
        assert rows[:, 0].tolist() == list(range(start, min(stop, 11)))
    assert reader.length == 11


def test_going_back_reads_again_only_where_rows_are_not_kept() -> None:
    kept, streamed = Source(11), Source(11)
    for source, keep in ((kept, True), (streamed, False)):
        reader = RowReader(source, CONTEXT, keep)
        reader.read(6, 8)
        reader.read(7, 9)
        reader.read(0, 1)
    assert (kept.opened, streamed.opened) == (1, 2)


def test_no_more_is_read_than_a_window() -> None:
    source = Source(10_000, sizes=(1,))
    rows = stream(source, window_rows=8, block_rows=4)
    rows.block(0)
    rows.block(1)
    assert source.served == 8
    assert rows.rows_per_epoch is None
    rows.block(2)
    assert source.served == 16
    assert source.opened == 1


def test_each_window_is_permuted_and_each_epoch_complete() -> None:
    rows = stream(Source(10), window_rows=4, block_rows=5)
    first, second = (numbers(rows.block(2 * e)) + numbers(rows.block(2 * e + 1)) for e in (0, 1))
    for epoch in (first, second):
        assert sorted(epoch[:4]) == [0, 1, 2, 3]
        assert sorted(epoch[4:8]) == [4, 5, 6, 7]
        assert sorted(epoch[8:]) == [8, 9]
    assert first != second
    assert rows.rows_per_epoch == 10


def test_rows_come_in_the_order_of_their_keys() -> None:
    rows = stream(Source(10), seed=7, window_rows=4, block_rows=10)
    expected = [4 * w + i for w, n in enumerate((4, 4, 2)) for i in permutation(n, ROW_ORDER, 7, 1, w)]
    assert numbers(rows.block(1)) == expected


def test_a_block_may_wrap_over_several_epochs() -> None:
    rows = stream(Source(4), window_rows=3, block_rows=7)
    blocks = [rows.block(index) for index in range(4)]
    assert [epoch for _, epoch in blocks] == [0, 1, 3, 5]
    sequence = [number for block in blocks for number in numbers(block)]
    for epoch in range(7):
        assert sorted(sequence[4 * epoch : 4 * epoch + 4]) == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 23),
    window_rows=st.integers(1, 9),
    block_rows=st.integers(1, 9),
    kept=st.booleans(),
    seed=st.integers(0, 2**40),
    indices=st.lists(st.integers(0, 12), min_size=1, max_size=6),
)
def test_a_block_does_not_depend_on_what_was_asked_before(
    length: int, window_rows: int, block_rows: int, kept: bool, seed: int, indices: list[int]
) -> None:
    walked = stream(Source(length, sizes=(length,)), seed, window_rows, block_rows, kept=True)
    in_order = [walked.block(index) for index in range(max(indices) + 1)]
    asked = stream(Source(length), seed, window_rows, block_rows, kept)
    for index in indices:
        rows, epoch = asked.block(index)
        assert epoch == in_order[index][1] == index * block_rows // length
        np.testing.assert_array_equal(rows, in_order[index][0])
        assert rows.shape == (block_rows, CONTEXT)


def test_the_block_size_does_not_change_the_sequence() -> None:
    small, large = stream(Source(11), block_rows=3), stream(Source(11), block_rows=12)
    assert [n for index in range(4) for n in numbers(small.block(index))] == numbers(large.block(0))


def test_seeds_differ() -> None:
    assert numbers(stream(Source(50), 0, 50, 50).block(0)) != numbers(stream(Source(50), 1, 50, 50).block(0))


def test_no_two_purposes_share_a_permutation() -> None:
    keys = [(ROW_ORDER, 5, 0, 0), (ROW_ORDER, 5, 1, 0), (ROW_ORDER, 5, 0, 1), (ROW_ORDER, 6, 0, 0), (BLOCK_ORDER, 5, 0)]
    assert len({tuple(permutation(30, *key)) for key in keys}) == len(keys)
