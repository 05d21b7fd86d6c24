"""Several sources in given shares of the tokens."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from sae_sweep.config.files import config_of
from sae_sweep.data.checks import check_data
from sae_sweep.data.mixture import CHUNK, Shares, asked_of, interleaved
from sae_sweep.data.tokens import Tokens, judged_rows, open_tokens, read_in_training
from sae_sweep.errors import ConfigError
from sae_sweep.plan.fingerprints import fingerprints

LETTERS = "abcdefghij", "klmnopqrst"
"""Of the first and the second source, so that a token tells which it is of."""


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """200 documents of 6 letters as JSON lines, and 30 as Parquet."""
    texts = [[_word(letters, n) for n in range(count)] for letters, count in zip(LETTERS, (200, 30), strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[0]))
    parquet.write_table(pa.table({"text": texts[1]}), tmp_path / "b.parquet")
    return [str(tmp_path / "a.jsonl"), str(tmp_path / "b.parquet")]


def _word(letters: str, number: int) -> str:
    return "".join(letters[int(digit)] for digit in f"{number * 7919:06d}"[-6:])


def _sources_of(rows: Any) -> Any:
    """Of each row, the source of its letters."""
    second = (rows >= 20).any(1)
    assert (second != ((rows >= 10) & (rows < 20)).any(1)).all(), "a row has documents of one source"
    return second.astype(int)


@pytest.fixture
def mixed(sources: list[str], make_config: Any) -> Callable[..., Any]:
    def config(**changes: Any) -> Any:
        values = {"kind": "text", "path": sources, "weights": [0.7, 0.3], "window_rows": 50, "block_rows": 20}
        return make_config(**(values | changes))

    return config


def test_rows_come_in_the_shares_that_were_asked_for(mixed: Any, tokenizer: Any) -> None:
    tokens = open_tokens(mixed(), 40, tokenizer, 100)
    assert np.bincount(_sources_of(tokens.heldout)).tolist() == [7, 3]
    rows = np.concatenate([tokens.training.block(index)[0] for index in range(CHUNK // 20)])
    assert abs(_sources_of(rows).mean() - 0.3) < 0.01
    assert tokens.training.rows_per_epoch is None


def test_a_block_is_the_same_whatever_was_asked_for_before(mixed: Any, make_tokenizer: Any) -> None:
    one, other = (open_tokens(mixed(), 40, make_tokenizer(), 100).training for _ in range(2))
    blocks = [one.block(index)[0] for index in range(120)]
    for index in (119, 3, 60):  # far beyond the end of both sources
        np.testing.assert_array_equal(other.block(index)[0], blocks[index])
    reseeded = open_tokens(mixed(seed=1), 40, make_tokenizer(), 100).training
    assert (reseeded.block(0)[0] != blocks[0]).any()


def test_the_account_has_a_line_for_each_source(mixed: Any, sources: list[str], tokenizer: Any) -> None:
    """The sources' rows are counted in the blocks themselves. The first has 3 letters to a row of 4; the second's 30
    documents of 6, with separators between them, are 69 rows, of which the first 2 documents are held out."""
    tokens = open_tokens(mixed(), 40, tokenizer, 100)
    read = sum(np.bincount(_sources_of(tokens.training.block(index)[0]), minlength=2) for index in range(13))
    told = tokens.account(13 * 20)
    assert told.startswith("data: 40 tokens held out, 1,040 read to train on; of data.path=")
    first, second = told.partition("; of ")[2].split("; of ")
    assert first.startswith(f"data.path={sources[0]}: {read[0] * 4:,} read to train on")
    epoch = tokens.sources[1].reader.length
    assert epoch is not None
    assert second.startswith(
        f"data.path={sources[1]}: {read[1] * 4:,} read to train on ({read[1] / epoch:.3g} times over {epoch * 4}), "
    )


def test_no_held_out_document_of_any_source_is_trained_on(mixed: Any, tokenizer: Any) -> None:
    tokens = open_tokens(mixed(bos="never", context=7), 70, tokenizer, 100)  # a document and a separator to a row
    held = {tuple(row[:6]) for row in tokens.heldout.tolist()}
    trained = {tuple(row[:6]) for index in range(100) for row in tokens.training.block(index)[0].tolist()}
    assert len(held) == 10
    assert len(trained) > 150
    assert not held & trained


def test_held_out_sources_of_their_own(mixed: Any, sources: list[str], tmp_path: Path, tokenizer: Any) -> None:
    for name, letter in (("c.txt", "a"), ("d.txt", "k")):
        (tmp_path / name).write_text(letter * 40)
    own = [str(tmp_path / "c.txt"), str(tmp_path / "d.txt")]
    tokens = open_tokens(mixed(heldout_path=own), 40, tokenizer, 100)
    assert np.bincount(_sources_of(tokens.heldout)).tolist() == [7, 3]
    assert set(tokens.heldout[:, 1:].flatten().tolist()) == {10, 20}


def test_judging_again_takes_held_out_rows_in_the_same_shares(mixed: Any, make_tokenizer: Any, sources: Any) -> None:
    config = mixed()
    trained: Tokens = open_tokens(config, 40, make_tokenizer(), 100)
    fewer = judged_rows(trained, config, config, 20, make_tokenizer(), 100)
    assert np.bincount(_sources_of(fewer.rows)).tolist() in ([3, 2], [4, 1])
    before = mixed(path=sources[1] + "x", weights=None, kind="tokens")
    other = judged_rows(trained, before, config, 80, make_tokenizer(), 100)
    assert all(f"data.path={source}" in other.account for source in sources)
    assert np.bincount(_sources_of(other.rows)).tolist() == [14, 6]
    assert read_in_training(mixed(path=sources[1], weights=None), config)
    assert not read_in_training(before, config)


def test_shares_are_kept_in_every_chunk_and_counted_at_every_row() -> None:
    shares = Shares([0.5, 0.2, 0.3], seed=3)
    drawn = shares.sources(0, 3 * CHUNK)
    for rows in (0, 1, 700, CHUNK, CHUNK + 5, 3 * CHUNK):
        assert shares.counts(rows).tolist() == np.bincount(drawn[:rows], minlength=3).tolist()
    np.testing.assert_array_equal(
        Shares([0.5, 0.2, 0.3], seed=3).sources(CHUNK + 9, 2 * CHUNK), drawn[CHUNK + 9 :][:1015]
    )
    for chunk in range(3):
        counted = np.bincount(drawn[chunk * CHUNK : (chunk + 1) * CHUNK])
        assert (abs(counted - np.array([0.5, 0.2, 0.3]) * CHUNK) < 1).all()


def test_parts_of_held_out_rows() -> None:
    assert asked_of([0.7, 0.3], 10) == [7, 3]
    assert asked_of([0.98, 0.02], 3) == [3, 1]
    parts = [np.array([[1], [2], [3], [4]], dtype=np.int32), np.array([[8], [9]], dtype=np.int32)]
    assert interleaved(parts)[:, 0].tolist() == [1, 8, 2, 3, 9, 4]


def test_each_source_is_known_by_its_content(mixed: Any) -> None:
    found = fingerprints(replace(config_of({}), data=mixed()))
    assert {"data.path (1)", "data.path (2)"} <= set(found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [1.0]}, r"data\.weights=\[1\]: give a weight for each of several sources"),
        ({"weights": [1.0, 0.0]}, r"data\.weights=\[1, 0\]: weights are numbers above 0"),
        ({"path": "a.jsonl"}, r"data\.weights=\[0\.7, 0\.3\]: give a weight for each"),
        ({"heldout_path": "c.txt"}, r"data\.heldout_path=c\.txt: with data\.weights it is null, or a list of as many"),
        ({"kind": "demo", "path": None}, r"data\.weights=\[0\.7, 0\.3\] is not read with data\.kind=demo"),
    ],
)
def test_weights_that_cannot_be(changes: dict[str, Any], message: str, mixed: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        check_data(mixed(**changes))


def test_a_file_is_in_one_source_only(mixed: Any, sources: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.jsonl is in two of the sources of data\.weights"):
        check_data(mixed(path=[str(tmp_path / "*.jsonl"), sources[0]]))


def test_token_ids_are_mixed_too(tmp_path: Path, make_config: Any) -> None:
    """A source that is cut into rows of its own, and a dataset's column, in three quarters and one."""
    np.save(tmp_path / "a.npy", np.full(4 * 40, 10))
    parquet.write_table(pa.table({"tokens": [[20] * 4] * 9}), tmp_path / "b.parquet")
    paths = [str(tmp_path / "a.npy"), str(tmp_path / "b.parquet")]
    config = make_config("tokens", paths, weights=[3.0, 1.0], window_rows=8, block_rows=8)
    tokens = open_tokens(config, 16, None, 100)
    assert tokens.heldout[:, 0].tolist().count(10) == 3
    rows = np.concatenate([tokens.training.block(index)[0] for index in range(CHUNK // 8)])
    assert rows.shape == (CHUNK, 4)
    assert np.count_nonzero(rows == 20) == CHUNK
    assert tokens.sources[1].reader.length == 8
