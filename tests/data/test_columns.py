import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from sae_sweep.data import hub_commit
from sae_sweep.data.tokens import open_tokens
from sae_sweep.errors import ConfigError

BOS, EOS = 1, 2
VOCABULARY = 2000


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def json_folder(folder: Path, **splits: Any) -> Any:
    folder.mkdir()
    for split, records in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(folder)


def sequence(tokens: Any, blocks: int) -> Any:
    return [row for index in range(blocks) for row in tokens.training.block(index)[0].tolist()]


@pytest.fixture
def text_folder(tmp_path: Path) -> Any:
    train = [{"text": letter * 5, "id": n} for n, letter in enumerate("abcdefghij")]
    return json_folder(tmp_path / "text", train=train, test=[{"text": "xyz", "id": 0}] * 4)


def test_a_text_column_is_streamed(text_folder: str, make_config: Any, tokenizer: Any) -> None:
    config = make_config("hub", text_folder, window_rows=3)
    tokens = open_tokens(config, 8, tokenizer, VOCABULARY)
    a, b = 10, 11
    assert tokens.heldout.tolist() == [[BOS, a, a, a], [BOS, a, a, EOS]]  # "aaaaa" gives one row: "bbbbb" goes with it
    walked = sequence(tokens, 24)
    assert not {a, b} & {i for row in walked for i in row}
    epoch = tokens.training.rows_per_epoch
    assert epoch == (8 * 5 + 7) // 3
    assert sorted(walked[:epoch]) == sorted(walked[epoch : 2 * epoch])
    assert walked[:epoch] != walked[epoch : 2 * epoch]
    again = open_tokens(config, 8, tokenizer, VOCABULARY).training
    for index in (23, 5, 0, 11):
        assert again.block(index)[0].tolist() == walked[2 * index : 2 * index + 2]


def test_a_split_of_its_own_for_the_held_out_set(text_folder: str, make_config: Any, tokenizer: Any) -> None:
    tokens = open_tokens(make_config("hub", text_folder, heldout_split="test"), 5, tokenizer, VOCABULARY)
    x, y, z = 33, 34, 35
    assert tokens.heldout.tolist() == [[BOS, x, y, z], [BOS, EOS, x, y]]
    sequence(tokens, 20)
    assert tokens.training.rows_per_epoch == (10 * 5 + 9) // 3


def test_no_more_is_read_of_a_stream_than_a_window(
    make_config: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def endless() -> Any:
        for n in range(1_000_000):
            read.append(n)
            yield {"text": "abc"}

    stream = datasets.IterableDataset.from_generator(endless)
    stream = stream.cast(datasets.Features({"text": datasets.Value("string")}))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stream)
    tokens = open_tokens(make_config("hub", "owner/endless", window_rows=16), 40, tokenizer, VOCABULARY)
    sequence(tokens, 3)
    assert len(read) < 4 * 512
    assert tokens.training.rows_per_epoch is None


@pytest.fixture(params=["json folder", "arrow file", "saved", "saved with splits"])
def id_source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Nine source rows of ten ids, as each of the forms they may have."""
    rows = {"tokens": np.arange(90).reshape(9, 10).tolist(), "n": list(range(9))}
    table = datasets.Dataset.from_dict(rows)
    if request.param == "json folder":
        records = [{"tokens": ids, "n": n} for n, ids in enumerate(rows["tokens"])]
        return json_folder(tmp_path / "ids", train=records)
    if request.param == "saved with splits":
        datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "ids")
        return str(tmp_path / "ids")
    table.with_format("numpy").save_to_disk(tmp_path / "ids")
    return str(tmp_path / "ids" / "data-00000-of-00001.arrow" if request.param == "arrow file" else tmp_path / "ids")


def pieces_of_ten(s: int) -> list[list[int]]:
    """The rows of ten ids from s on: two of four, and the last two behind two that do not count again."""
    return [[s, s + 1, s + 2, s + 3], [s + 4, s + 5, s + 6, s + 7], [~(s + 6), ~(s + 7), s + 8, s + 9]]


@pytest.mark.parametrize("kind", ["tokens", "hub"])
def test_a_column_of_ids(id_source: str, make_config: Any, tokenizer: Any, kind: str) -> None:
    config = make_config(kind, id_source, field="tokens", window_rows=5)
    tokens = open_tokens(config, 9, tokenizer, VOCABULARY)
    assert tokens.heldout.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [10, 11, 12, 13]]
    expected = [row for s in range(20, 90, 10) for row in pieces_of_ten(s)]
    walked = sequence(tokens, 21)
    assert sorted(walked[:21]) == sorted(walked[21:]) == sorted(expected)
    assert tokens.training.block(0)[0].tolist() == walked[:2]


def test_ragged_rows_of_ids(tmp_path: Path, make_config: Any) -> None:
    rows = [[0, 1, 2, 3], [4, 5, 6, 7, 8], list(range(10, 18)), [20, 21, 22, 23]]
    path = json_folder(tmp_path / "ids", train=[{"tokens": ids} for ids in rows])
    tokens = open_tokens(make_config("tokens", path), 4, None, VOCABULARY)
    assert sorted(sequence(tokens, 5)[:5]) == [
        *([~5, ~6, ~7, 8], [4, 5, 6, 7], [10, 11, 12, 13], [14, 15, 16, 17], [20, 21, 22, 23])
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2, 3, 4], [5, 6, 7]], r"has a row of 3 tokens, fewer than data\.context=4"),
        ([[1, 2, 3, 4], [5, 6, 7, 2000]], r"holds token id 2000; the model's vocabulary of 2000 ends at 1999"),
        ([[1, 2, 3, 4], [[1], [2]], [5, 6, 7, 8]], r"could not be opened|is no list of ids"),
        ([[1, 2, 3, 4]] * 9 + [[-3] * 4], r"token id -3"),
        ([["a"] * 4], r"holds list of str"),
        ([[1.5, 2.0]], r"holds list of float: neither text nor lists of token ids"),
        ([7, 8], r"holds int: neither text nor lists of token ids"),
        ([[]], r"holds list: neither text nor lists of token ids"),
        (["abc"], r"holds text, not token ids; take data=hub"),
    ],
)
def test_columns_that_are_no_ids(tmp_path: Path, make_config: Any, rows: Any, message: str) -> None:
    path = json_folder(tmp_path / "ids", train=[{"tokens": ids} for ids in rows])
    with pytest.raises(ConfigError, match=message):
        open_tokens(make_config("tokens", path), 4, None, VOCABULARY)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.json.gz", "a.csv"])
def test_one_file_of_a_format_of_the_library(tmp_path: Path, make_config: Any, tokenizer: Any, name: str) -> None:
    texts = [letter * 5 for letter in "abcdefghij"]
    file, table = tmp_path / name, datasets.Dataset.from_dict({"text": texts})
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    if name.endswith(("parquet", "csv")):
        (table.to_parquet if name.endswith("parquet") else table.to_csv)(file)
    else:
        file.write_bytes(gzip.compress(lines.encode()) if name.endswith("gz") else lines.encode())
    tokens = open_tokens(make_config("hub", str(file), window_rows=3), 8, tokenizer, VOCABULARY)
    assert tokens.heldout.tolist() == [[BOS, 10, 10, 10], [BOS, 10, 10, EOS]]
    sequence(tokens, 24)
    assert tokens.training.rows_per_epoch == (8 * 5 + 7) // 3


def test_files_that_another_kind_reads(tmp_path: Path, make_config: Any, tokenizer: Any) -> None:
    (tmp_path / "a.txt").write_text("abc")
    with pytest.raises(ConfigError, match=r"a\.txt is a file that data\.kind=text may read; take data=text"):
        open_tokens(make_config("hub", str(tmp_path / "a.txt")), 4, tokenizer, VOCABULARY)


def test_slices_of_splits(text_folder: str, make_config: Any, tokenizer: Any) -> None:
    tokens = open_tokens(make_config("hub", text_folder, split="train[:50%]"), 8, tokenizer, VOCABULARY)
    sequence(tokens, 12)
    assert tokens.training.rows_per_epoch == 1 + (3 * 5 + 2) // 3, "one is cut from the second document"
    with pytest.raises(ConfigError, match=r"data\.split=train\[:10%\]: a slice of a hub dataset cannot be streamed"):
        open_tokens(make_config("hub", "owner/name", split="train[:10%]"), 4, tokenizer, VOCABULARY)


def test_null_and_empty_rows_are_skipped(tmp_path: Path, make_config: Any, tokenizer: Any) -> None:
    texts = [None, "", *["abcdef"] * 5, None, *["abcdef"] * 5]
    path = json_folder(tmp_path / "text", train=[{"text": text} for text in texts])
    tokens = open_tokens(make_config("hub", path, bos="never"), 4, tokenizer, VOCABULARY)
    sequence(tokens, 20)
    assert tokens.training.rows_per_epoch == (9 * 6 + 8) // 4
    assert tokens.account(40).endswith("; 3 empty records skipped")
    ids = json_folder(tmp_path / "ids", train=[{"tokens": row} for row in (None, *[[1, 2, 3, 4]] * 5, None)])
    tokens = open_tokens(make_config("tokens", ids), 4, None, VOCABULARY)
    sequence(tokens, 5)
    assert tokens.account(10) == (
        "data: 4 tokens held out, 40 read to train on (2.5 times over 16), 0 dropped; 2 empty records skipped"
    )


def test_a_masked_column_of_ids(tmp_path: Path, make_config: Any) -> None:
    row = {"tokens": [9, 9, 1, 2, 3, 4], "attention_mask": [0, 0, 1, 1, 1, 1]}
    short = {"tokens": [9, 9, 9, 5, 6, 7], "attention_mask": [0, 0, 0, 1, 1, 1]}
    path = json_folder(tmp_path / "ids", train=[row, *[short] * 8])
    tokens = open_tokens(make_config("tokens", path), 4, None, VOCABULARY)
    assert tokens.heldout.tolist() == [[1, 2, 3, 4]]
    assert {tuple(ids) for ids in sequence(tokens, 4)} == {(5, 6, 7, ~0)}


def test_a_column_that_is_not_there(text_folder: str, make_config: Any, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.field=body is no column of data\.path=.*; it has text, id"):
        open_tokens(make_config("hub", text_folder, field="body"), 4, tokenizer, VOCABULARY)


def test_text_columns_need_a_tokenizer(text_folder: str, make_config: Any) -> None:
    with pytest.raises(ConfigError, match=r"is text, and the model has no tokenizer"):
        open_tokens(make_config("hub", text_folder), 4, None, VOCABULARY)


def test_splits_that_are_not_there(text_folder: str, tmp_path: Path, make_config: Any, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"\(data\.split=dev\) could not be opened: .*dev"):
        open_tokens(make_config("hub", text_folder, split="dev"), 4, tokenizer, VOCABULARY)
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"tokens": [[1, 2, 3, 4]]})})
    saved.save_to_disk(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"data\.heldout_split=dev is no split of .*; it has train"):
        open_tokens(make_config("tokens", str(tmp_path / "saved"), heldout_split="dev"), 4, None, VOCABULARY)


def test_datasets_that_cannot_be_opened(
    tmp_path: Path, make_config: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = tmp_path / "torn.arrow"
    torn.write_bytes(b"not arrow")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.jsonl").write_text("{")  # found out only when the first row is read
    empty = tmp_path / "empty"
    empty.mkdir()
    for kind, path in (("tokens", str(torn)), ("hub", str(empty)), ("hub", str(tmp_path / "broken"))):
        with pytest.raises(ConfigError, match=r"data\.path=.* \(data\.split=train\) could not be opened: .+"):
            open_tokens(make_config(kind, path), 4, tokenizer, VOCABULARY)

    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(
        ConfigError, match=r"^data\.path=owner/name \(data\.split=train\) could not be opened: no route$"
    ):
        open_tokens(make_config("hub", "owner/name"), 4, tokenizer, VOCABULARY)


def test_a_dataset_without_rows(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = datasets.Dataset.from_dict({"tokens": []})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: empty)
    with pytest.raises(ConfigError, match=r"has no rows"):
        open_tokens(make_config("tokens", "owner/empty"), 4, None, VOCABULARY)


def test_a_filter_is_of_the_configuration_and_split_that_are_read(
    make_config: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set()

    def load(path: str, name: str, *, split: str, streaming: bool, revision: str) -> Any:
        asked.add((path, name, split, streaming))
        records = [{"text": letter * 5, "meta": {"lang": ("fr", "en")[n % 2]}} for n, letter in enumerate("abcdefghij")]
        return datasets.Dataset.from_list(records).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub_commit, "_ASKED", {"owner/one": "a" * 40})
    chosen = {"name": "both", "split": "validation", "filter": {"meta.lang": "en"}}
    tokens = open_tokens(make_config("hub", "owner/one", **chosen), 8, tokenizer, VOCABULARY)
    assert {i for row in (*tokens.heldout.tolist(), *sequence(tokens, 24)) for i in row} == {
        BOS,
        EOS,
        *range(11, 20, 2),
    }
    assert asked == {("owner/one", "both", "validation", True)}
    absent = make_config("hub", "owner/one", **(chosen | {"filter": {"meta.language": "en"}}))
    with pytest.raises(
        ConfigError, match=r"data\.filter: meta\.language is no column of data\.path=owner/one; it has text"
    ):
        open_tokens(absent, 8, tokenizer, VOCABULARY)


def test_a_configuration_and_split_reach_the_library(
    make_config: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(path: str, name: str, *, split: str, streaming: bool, revision: str) -> Any:
        asked.append((path, name, split, streaming, revision))
        return datasets.Dataset.from_dict({"text": ["abcdef"] * 9}).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub_commit, "_ASKED", {"owner/one": "a" * 40, "owner/two": None})
    open_tokens(make_config("hub", "owner/one", name="en", heldout_path="owner/two"), 4, tokenizer, VOCABULARY)
    assert asked == [("owner/one", "en", "train", True, "a" * 40), ("owner/two", None, "train", True, None)]
