from typing import Any

import numpy as np
import pytest

from sae_sweep.data.packing import PackedText, RowFormat, TokenRows, checked_ids
from sae_sweep.errors import ConfigError

BOS, EOS = 1, 2
A, B, C, D, E, F, G, H = range(10, 18)
DOCUMENTS = ["abc", "", "de", " ", "f", "gh"]  # two of them have no token


def packed(tokenizer: Any, context: int = 4, bos_id: int | None = BOS, documents: Any = DOCUMENTS) -> Any:
    return PackedText(lambda: iter(documents), tokenizer, RowFormat(context, bos_id, 100), "data.path=x", True)


def all_rows(source: Any, skip: int = 0) -> Any:
    chunks = list(source.rows_after(skip))
    return np.concatenate(chunks).tolist() if chunks else []


def test_rows_begin_with_bos_and_documents_are_parted_by_eos(tokenizer: Any) -> None:
    rows = packed(tokenizer).rows_after(0)
    # a b c . d e . f . g h in pieces of three; the last, g h, is no whole row
    expected = [[BOS, A, B, C], [BOS, EOS, D, E], [BOS, EOS, F, EOS]]
    chunk = next(rows)
    assert chunk.dtype == np.int32
    assert chunk.tolist() == expected


def test_rows_without_bos_use_every_position(tokenizer: Any) -> None:
    assert all_rows(packed(tokenizer, bos_id=None)) == [[A, B, C, EOS], [D, E, EOS, F]]


def test_bos_parts_documents_where_there_is_no_eos(make_tokenizer: Any) -> None:
    source = packed(make_tokenizer(eos_token_id=None), bos_id=None)
    assert all_rows(source) == [[A, B, C, BOS], [D, E, BOS, F]]


def test_nothing_parts_documents_where_there_is_neither(make_tokenizer: Any) -> None:
    source = packed(make_tokenizer(bos_token_id=None, eos_token_id=None), bos_id=None)
    assert all_rows(source) == [[A, B, C, D], [E, F, G, H]]


def test_eos_of_id_zero_is_a_separator(make_tokenizer: Any) -> None:
    assert all_rows(packed(make_tokenizer(eos_token_id=0), bos_id=None))[0] == [A, B, C, 0]


def test_batches_do_not_show_in_the_rows(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = all_rows(packed(tokenizer))
    monkeypatch.setattr("sae_sweep.data.packing._BATCH_DOCUMENTS", 1)
    assert all_rows(packed(tokenizer)) == whole


@pytest.mark.parametrize(
    ("rows", "documents", "expected"),
    [
        (1, 1, [[BOS, A, B, C]]),
        (2, 3, [[BOS, A, B, C], [BOS, EOS, D, E]]),
        (3, 6, [[BOS, A, B, C], [BOS, EOS, D, E], [BOS, EOS, F, EOS]]),
        (9, 6, [[BOS, A, B, C], [BOS, EOS, D, E], [BOS, EOS, F, EOS]]),
    ],
)
def test_head_takes_the_fewest_whole_documents(tokenizer: Any, rows: Any, documents: Any, expected: Any) -> None:
    head, taken = packed(tokenizer).head(rows)
    assert head.tolist() == expected
    assert taken == documents


def test_rows_after_begin_with_a_fresh_document(tokenizer: Any) -> None:
    assert all_rows(packed(tokenizer, context=3), skip=2) == [[BOS, D, E], [BOS, EOS, F], [BOS, EOS, G]]


def test_skipped_documents_are_not_tokenised(tokenizer: Any) -> None:
    all_rows(packed(tokenizer), skip=4)
    assert tokenizer.documents_seen == 2


def test_a_tokenizer_beyond_the_model_is_refused(tokenizer: Any) -> None:
    source = PackedText(lambda: iter(["az"]), tokenizer, RowFormat(2, None, 30), "data.path=x", True)
    with pytest.raises(ConfigError, match=r"data\.path=x holds token id 35; .* 30 "):
        list(source.rows_after(0))


def sheets(*arrays: Any, context: int = 2, bos_id: int | None = None) -> Any:
    form = RowFormat(context, bos_id, 100, ids_begin_so=bos_id is not None)
    return TokenRows(lambda: iter([np.array(a, dtype=np.int32) for a in arrays]), form, "data.path=x", False)


def test_a_tokenizer_that_fails_is_told_of(tokenizer: Any) -> None:
    """As one does whose model_max_length is no number."""

    class Broken:
        bos_token_id = eos_token_id = None

        def __call__(self, text: list[str], **options: bool) -> Any:
            raise TypeError("'>' not supported\nbetween these")

    form = RowFormat(4, None, 100)
    rows = PackedText(lambda: iter(["abc"]), Broken(), form, "data.path=x", kept=False)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"data\.path=x: the model's tokenizer cannot read it \(TypeError: '>' not"):
        rows.head(1)


def test_source_rows_are_cut_and_the_end_of_each_is_in_one_more_row() -> None:
    """There it follows tokens that were in the row before: they do not count again, which ~id says."""
    source = sheets([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], [[11, 12]])
    assert all_rows(source) == [[1, 2], [3, 4], [~4, 5], [6, 7], [8, 9], [~9, 10], [11, 12]]
    assert all_rows(sheets([[1, 2, 3, 4, 5, 6, 7]], context=5)) == [[1, 2, 3, 4, 5], [~3, ~4, ~5, 6, 7]]
    assert all_rows(sheets([[5, 6, 5]], bos_id=5)) == [[5, 6]], "rows that must begin with BOS cannot begin elsewhere"
    assert next(source.rows_after(0)).dtype == np.int32


@pytest.mark.parametrize(
    ("rows", "taken", "last"), [(1, 1, [3, 4]), (2, 1, [3, 4]), (3, 2, [8, 9]), (5, 3, [11, 12]), (8, 3, [11, 12])]
)
def test_head_of_token_rows_takes_whole_source_rows(rows: Any, taken: int, last: list[int]) -> None:
    source = sheets([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], [[11, 12]])
    head, documents = source.head(rows)
    assert documents == taken
    assert head[-1].tolist() == last
    assert all_rows(source, skip=documents) == all_rows(source)[3 * taken :]


def test_short_source_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a row of 3 tokens, fewer than data\.context=4"):
        all_rows(sheets([[1, 2, 3]], context=4))
    with pytest.raises(ConfigError, match=r"a row of 3 tokens, fewer than data\.context=4"):
        sheets([[1, 2, 3]], context=4).head(1)


def test_bos_that_is_asked_for_must_be_there() -> None:
    assert all_rows(sheets([[1, 5], [1, 6]], bos_id=1)) == [[1, 5], [1, 6]]
    assert all_rows(sheets([[~1, 5]], bos_id=1)) == [[~1, 5]], "though a mask says that it does not count"
    with pytest.raises(ConfigError, match=r"data\.bos=always.*do not begin with BOS \(id 1\)"):
        all_rows(sheets([[1, 5, 6, 7]], bos_id=1))


def test_ids_are_checked() -> None:
    assert checked_ids(np.array([0, 99], dtype=np.uint16), 100, "x").dtype == np.int32
    for bad in (100, -1, 2**40):
        with pytest.raises(ConfigError, match=rf"data\.path=x holds token id {bad}; the model's vocabulary of 100 "):
            checked_ids(np.array([3, bad]), 100, "data.path=x")
    with pytest.raises(ConfigError, match=r"data\.path=x holds float64 values"):
        checked_ids(np.array([1.0]), 100, "data.path=x")
    with pytest.raises(ConfigError, match=r"data\.path=x holds bool values"):
        checked_ids(np.array([True]), 100, "data.path=x")


def test_documents_that_are_read_apart_begin_as_rows_do(make_tokenizer: Any) -> None:
    """With BOS, behind the separator; which is BOS itself where the tokenizer has no other."""
    for eos, expected in (
        (EOS, [[BOS, A, B, C, EOS], [BOS, BOS, D, E, EOS]]),
        (BOS, [[BOS, A, B, C, BOS], [BOS, D, E, BOS, F]]),
    ):
        form = RowFormat(5, BOS, 100, apart=True)
        source = PackedText(lambda: iter(DOCUMENTS), make_tokenizer(eos_token_id=eos), form, "data.path=x", True)
        assert all_rows(source)[:2] == expected
