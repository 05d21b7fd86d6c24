"""Formats of text files by suffix and content, and records that are empty or bad."""

import bz2
import gzip
import io
import json
import logging
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from sae_sweep.config.files import config_of
from sae_sweep.config.schema import DataConfig
from sae_sweep.data.checks import check_data
from sae_sweep.data.fields import Wanted
from sae_sweep.data.formats import records_of
from sae_sweep.data.records import Bad, Ledger, LeftOut
from sae_sweep.data.tokens import open_tokens
from sae_sweep.errors import ConfigError

DOCUMENTS = ["abc, def", 'say "x"\nand', "größer"]
LINES = "".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS)
TABLE = 'n,text\n1,"abc, def"\n2,"say ""x""\nand"\n3,größer\n'
CONTENTS = {
    "a.jsonl": LINES,
    "a.JSONL": LINES,
    "a.ndjson": LINES,
    "a.json": json.dumps([{"text": document} for document in DOCUMENTS], indent=1),
    "b.json": LINES,
    "c.json": json.dumps(DOCUMENTS),
    "a.csv": TABLE,
    "a.CSV": TABLE,
    "a.tsv": 'text\tn\nabc, def\t1\n"say ""x""\nand"\t2\ngrößer\t3\n',
}


@pytest.mark.parametrize("packing", ["", ".gz", ".xz", ".BZ2"])
@pytest.mark.parametrize("name", CONTENTS)
def test_documents_of_every_format(tmp_path: Path, name: str, packing: str) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".BZ2": bz2.compress}[packing]
    (tmp_path / (name + packing)).write_bytes(pack(CONTENTS[name].encode()))
    assert list(records_of(tmp_path / (name + packing), "data.path", Wanted("text"))) == DOCUMENTS


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".ARROW"])
def test_documents_of_columns(tmp_path: Path, make_config: Any, suffix: str, packing: str) -> None:
    """Of Arrow files both kinds: with a footer, and without, as a stream."""
    meta = [{"text": document} for document in DOCUMENTS]
    table, sink = pa.table({"n": [1, 2, 3, 4], "text": [*DOCUMENTS, None], "meta": [*meta, None]}), io.BytesIO()
    if suffix == ".parquet":
        parquet.write_table(table, sink)
    else:
        with (pa.ipc.new_file if suffix == ".arrow" else pa.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table)
    file = tmp_path / f"a{suffix}{packing}"
    file.write_bytes(gzip.compress(sink.getvalue()) if packing else sink.getvalue())
    check_data(make_config("text", str(file)))
    assert list(records_of(file, "data.path", Wanted("text"))) == [*DOCUMENTS, None]
    found = list(records_of(file, "data.path", Wanted("meta.text", filter={"n": [1, 3]})))
    assert found == [DOCUMENTS[0], LeftOut(), DOCUMENTS[2], LeftOut()]
    with pytest.raises(ConfigError, match=r"has no column data\.field=body; it has n, text, meta"):
        list(records_of(file, "data.path", Wanted("body")))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_columns_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"junk" * 40)
    with pytest.raises(ConfigError, match="cannot be read") as refusal:
        list(records_of(tmp_path / name, "data.path", Wanted("text")))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "README", "a.txt.gz", "v1.2"])
def test_other_files_are_text(tmp_path: Path, make_config: Any, name: str) -> None:
    text = "One, two.\n\nThree, four, five.\n{not json}\n"
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    check_data(make_config("text", str(tmp_path / name)))
    assert list(records_of(tmp_path / name, "data.path", Wanted("text"))) == [text]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", LINES.encode(), r"a\.txt holds JSON lines, and its name says plain text; end it in \.jsonl"),
        ("a.log", LINES.encode(), r"holds JSON lines"),
        ("table", TABLE.encode(), r"table holds CSV, and its name does not say so; end it in \.csv"),
        ("a.jsonl", b"PAR1....", r"it is Parquet; end its name in \.parquet"),
        ("a.txt", gzip.compress(b"abc", mtime=0), r"it is compressed by gzip; end its name in \.gz"),
        ("a.jsonl.gz", LINES.encode(), r"cannot be read \(Not a gzipped file"),
        ("a.csv.gz", gzip.compress(TABLE.encode(), mtime=0)[:20], r"cannot be read \(Compressed file ended"),
        ("a.jsonl.zst", b"(\xb5/\xfd", r"needs the package zstandard|cannot be read"),
    ],
)
def test_content_that_contradicts_its_name(
    tmp_path: Path, make_config: Any, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refusal:
        check_data(make_config("text", str(tmp_path / name)))
    assert "\n" not in str(refusal.value)


def test_a_column_that_a_table_lacks(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(TABLE)
    with pytest.raises(ConfigError, match=r"a\.csv has no column data\.field=body; it has n, text"):
        list(records_of(tmp_path / "a.csv", "data.path", Wanted("body")))


def lines(tmp_path: Path, *records: str, good: int) -> str:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(record + "\n" for record in (*records, *['{"text": "abcdef"}'] * good)))
    return str(file)


def test_bad_records_are_skipped_up_to_a_share(
    tmp_path: Path, make_config: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Four of a hundred, of three kinds; two empty ones are not bad."""
    bad = ('{"text": "\\ud800"}', '{"text": ["a"]}', '{"text": "a', '{"text": "b')
    path = lines(tmp_path, '{"text": null}', *bad, '{"text": ""}', good=94)
    config: DataConfig = make_config("text", path, max_bad_records=0.04)
    with caplog.at_level(logging.WARNING):
        tokens = open_tokens(config, 4, tokenizer, 100)
        for index in range(200):
            tokens.training.block(index)
    assert tokens.sources[0].rows.ledger is not None
    assert tokens.sources[0].rows.ledger.said() == "2 empty and 4 bad"
    assert tokens.account(400).endswith("; 2 empty and 4 bad records skipped")
    for line, text in ((2, "a lone surrogate"), (3, "holds list, not text"), (4, "is not JSON")):
        assert caplog.text.count(f"many.jsonl line {line}") == caplog.text.count(text) == 1
    with pytest.raises(ConfigError, match=r"4 of 100 records read are bad, more than data\.max_bad_records=0\.03"):
        open_tokens(make_config("text", path, max_bad_records=0.03), 4, tokenizer, 100)


def test_many_bad_records_stop_before_the_end() -> None:
    read = []

    def records() -> Any:
        for number in range(10**6):
            read.append(number)
            yield Bad("is not JSON", f"line {number + 1} is not JSON") if number % 10 == 0 else "text"

    with pytest.raises(ConfigError, match=r"x: 11 of 101 records read are bad.*the first: line 1 is not JSON"):
        list(Ledger("x", 0.001).sound(records()))
    assert len(read) == 101


@pytest.mark.parametrize(
    "override",
    [
        *("data=text data.path=FOLDER", "data=text data.path=FOLDER/**/*.txt", "data=tokens data.path=FOLDER"),
        *("data=hub data.path=FOLDER", "data=activations data.path=FOLDER"),
        "data=activations data.path=FOLDER/**/*.npy",
    ],
)
def test_a_folder_that_is_no_data_set_is_not_walked(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk has more files than any data set that somebody names: a glob without `**` names those to read."""
    monkeypatch.setattr("sae_sweep.data.origin.MOST_FILES", 4)
    (tmp_path / "a" / "b").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "a" / "b" / f"{number}.txt").write_text("text")
    config = config_of(override.replace("FOLDER", str(tmp_path)).split()).data
    with pytest.raises(ConfigError, match=r"there are more than 4 files in .*; name those to read, by a glob"):
        check_data(config)
    few = config_of(["data=text", f"data.path={tmp_path}/a/b/*.txt"]).data
    check_data(few)


@pytest.mark.parametrize("kind", ["text", "tokens", "hub", "activations"])
def test_a_whole_disk_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_sweep.data.origin.MOST_FILES", 2000)
    with pytest.raises(ConfigError, match=r"data\.path=/: there are more than 2,000 files in /; name those to read"):
        check_data(config_of([f"data={kind}", "data.path=/"]).data)
