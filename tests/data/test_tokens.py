import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sae_sweep.data.checks import check_data
from sae_sweep.data.documents import text_files, text_records
from sae_sweep.data.fields import Wanted
from sae_sweep.data.formats import PIECE_CHARACTERS
from sae_sweep.data.origin import Origin
from sae_sweep.data.tokens import open_tokens
from sae_sweep.errors import ConfigError

BOS, EOS = 1, 2
LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = 100


def words(*documents: Any) -> Any:
    return [[ord(letter) - ord("a") + 10 for letter in document] for document in documents]


def epoch_rows(tokens: Any) -> Any:
    """All training rows of the first epoch, sorted."""
    rows = []
    index = 0
    while tokens.training.rows_per_epoch is None or len(rows) < tokens.training.rows_per_epoch:
        rows += tokens.training.block(index)[0].tolist()
        index += 1
    return sorted(rows[: tokens.training.rows_per_epoch])


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write_file(name: str, content: Any) -> Any:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(content) if isinstance(content, bytes) else file.write_text(content, encoding="utf-8")
        return str(file)

    return write_file


@pytest.fixture
def arrays(tmp_path: Path) -> Any:
    def save(name: str, **content: Any) -> Any:
        file = tmp_path / name
        np.savez(file, **content) if name.endswith("npz") else np.save(file, *content.values())
        return str(file)

    return save


def jsonl(documents: Any, field: str = "text") -> Any:
    return "".join(json.dumps({"id": n, field: document}) + "\n" for n, document in enumerate(documents))


# ---- text ------------------------------------------------------------------------------------------------------------


def test_text_files_are_documents_in_sorted_order(write: Any, tmp_path: Path, make_config: Any, tokenizer: Any) -> None:
    for name, text in (("b.txt", "fgh"), ("a.txt", "abc"), ("c.txt", "ijk"), ("d.txt", "mno"), ("e.md", "zzz")):
        write(name, text)
    by_glob = make_config("text", str(tmp_path / "*.txt"), bos="never", context=3)
    tokens = open_tokens(by_glob, 3, tokenizer, VOCABULARY)
    assert tokens.heldout.tolist() == words("abc")
    assert tokens.heldout.dtype == np.int32
    f, g, h, i, j, k, m = words("fghijkm")[0]
    assert epoch_rows(tokens) == [[EOS, i, j], [f, g, h], [k, EOS, m]]
    by_list = make_config(
        "text", [str(tmp_path / "[cd].txt"), str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], bos="never", context=3
    )
    np.testing.assert_array_equal(
        open_tokens(by_list, 3, tokenizer, VOCABULARY).training.block(0)[0], tokens.training.block(0)[0]
    )


def test_files_are_sorted_and_come_once(write: Any, tmp_path: Path) -> None:
    names = [f"{letter}{number}.txt" for letter in "cab" for number in (3, 1, 2)]
    paths = [write(name, "x") for name in names]
    origin = Origin("data.path", [str(tmp_path / "*.txt"), *paths], None, "data.split", "train", Wanted("text"))
    assert [file.name for file in text_files(origin)] == sorted(names)


def test_the_mark_at_the_beginning_of_a_text_is_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfabc\r\nd\xef\xbb\xbf")
    origin = Origin("data.path", str(path), None, "data.split", "train", Wanted("text"))
    assert list(text_records([path], origin)) == ["abc\nd\ufeff"]


def test_a_file_by_two_names_is_read_once(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else training would read what is held out of the first."""
    path = Path(write("a.txt", "x"))
    (tmp_path / "b.txt").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for named in (str(tmp_path), ["a.txt", str(path)]):
        origin = Origin("data.path", named, None, "data.split", "train", Wanted("text"))
        assert [file.name for file in text_files(origin)] == ["a.txt"]


def test_jsonl_has_a_document_per_line(write: Any, make_config: Any, tokenizer: Any) -> None:
    path = write("a.jsonl", jsonl(["abc", "", "def", "ghi", "jkl", "m"], "body") + "\n")
    config = make_config("text", path, field="body")
    tokens = open_tokens(config, 4, tokenizer, VOCABULARY)
    assert tokens.heldout.tolist() == [[BOS, *words("abc")[0]]]
    d, e, f, g, h = words("defgh")[0]
    assert sorted(tokens.training.block(0)[0].tolist()) == sorted([[BOS, d, e, f], [BOS, EOS, g, h]])


def test_held_out_documents_are_never_trained_on(write: Any, make_config: Any, tokenizer: Any) -> None:
    documents = [LETTERS[n % 26] * 5 for n in range(26)]  # a letter belongs to one document
    config = make_config("text", write("a.jsonl", jsonl(documents)), block_rows=1, window_rows=3)
    for asked in (1, 4, 5, 17, 40):
        tokens = open_tokens(config, asked, tokenizer, VOCABULARY)
        assert len(tokens.heldout) == -(-asked // 4)
        held = set(tokens.heldout.flatten().tolist()) - {BOS, EOS}
        trained = {i for row in epoch_rows(tokens) for i in row} - {BOS, EOS}
        assert not held & trained
        documents_held = next(n for n in range(26) if (6 * n - 1) // 3 >= len(tokens.heldout))
        assert trained == set(range(10 + documents_held, 36))  # and no document is lost


def test_a_path_of_its_own_for_the_held_out_set(
    write: Any, make_config: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    train, heldout = write("a.jsonl", jsonl(["abcdefg"])), write("h.jsonl", jsonl(["tuv", "wxyz"]))
    config = make_config("text", train, heldout_path=heldout)
    with caplog.at_level(logging.WARNING):
        tokens = open_tokens(config, 1000, tokenizer, VOCABULARY)
    t, u, v, w, x = words("tuvwx")[0]
    assert tokens.heldout.tolist() == [[BOS, t, u, v], [BOS, EOS, w, x]]
    assert "asks for 250 held-out rows of 4 tokens; 2 are held out" in caplog.text
    a, b, c, d, e, f = words("abcdef")[0]
    assert epoch_rows(tokens) == [[BOS, a, b, c], [BOS, d, e, f]]


def test_the_demo_corpus(make_config: Any, make_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": ["abc", "def", "ghi"], "heldout": ["xyz"]}
    monkeypatch.setattr("sae_sweep.data.kinds.demo.demo_documents", lambda split: iter(splits[split]))
    tokens = open_tokens(make_config("demo", bos="never", context=3), 3, make_tokenizer(eos_token_id=None), VOCABULARY)
    assert tokens.heldout.tolist() == words("xyz")
    a, b, c, d, e, f, g = words("abcdefg")[0]
    assert epoch_rows(tokens) == [[BOS, d, e], [a, b, c], [f, BOS, g]]


def test_text_is_tokenised_once_for_all_epochs(write: Any, make_config: Any, tokenizer: Any) -> None:
    path = write("a.jsonl", jsonl(["abcdef"] * 10))
    tokens = open_tokens(make_config("text", path), 4, tokenizer, VOCABULARY)
    for index in range(40):
        tokens.training.block(index)
    assert tokenizer.documents_seen == 10 + 9  # the held-out set's look at the start, and the rest


def test_a_block_is_the_same_from_a_fresh_source(write: Any, make_config: Any, make_tokenizer: Any) -> None:
    path = write("a.jsonl", jsonl([LETTERS[n:] for n in range(26)]))
    config = make_config("text", path, seed=3)
    one, other = (open_tokens(config, 8, make_tokenizer(), VOCABULARY).training for _ in range(2))
    blocks = [one.block(index) for index in range(100)]
    for index in (99, 0, 57, 58):
        np.testing.assert_array_equal(other.block(index)[0], blocks[index][0])
        assert other.block(index)[1] == blocks[index][1]
    assert blocks[99][1] > 0


# ---- token ids -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_token_rows_are_used_as_they_are(arrays: Any, make_config: Any, dtype: Any) -> None:
    path = arrays("a.npz", tokens=np.arange(90, dtype=dtype).reshape(9, 10))
    tokens = open_tokens(make_config("tokens", path, block_rows=1), 9, None, 90)
    # Three rows held out are the first source row (two pieces, two ids dropped) and half of the second.
    assert tokens.heldout.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [10, 11, 12, 13]]
    expected = [list(range(s + p, s + p + 4)) for s in range(20, 90, 10) for p in (0, 4)]
    ends = [[~(s + 6), ~(s + 7), s + 8, s + 9] for s in range(20, 90, 10)]  # behind two that do not count again
    assert epoch_rows(tokens) == sorted(ends + expected)
    assert tokens.account(28) == "data: 12 tokens held out, 112 read to train on (1.33 times over 84), 4 dropped"


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_a_stream_of_tokens_is_cut_into_rows(arrays: Any, make_config: Any, tokenizer: Any, name: str) -> None:
    path = arrays(name, ids=np.arange(23))
    tokens = open_tokens(make_config("tokens", path, field="ids", block_rows=1), 4, tokenizer, VOCABULARY)
    assert tokens.heldout.tolist() == [[0, 1, 2, 3]]
    assert epoch_rows(tokens) == [list(range(s, s + 4)) for s in (4, 8, 12, 16)]


def test_held_out_tokens_from_a_file_of_their_own(arrays: Any, make_config: Any) -> None:
    train, heldout = arrays("a.npz", tokens=np.arange(16)), arrays("h.npz", tokens=np.arange(50, 58))
    tokens = open_tokens(make_config("tokens", train, heldout_path=heldout), 4, None, VOCABULARY)
    assert tokens.heldout.tolist() == [[50, 51, 52, 53]]
    assert len(epoch_rows(tokens)) == 4


def test_a_document_is_cut_where_much_would_be_lost_with_it(arrays: Any, make_config: Any) -> None:
    """Of two records the first has nine tenths of all tokens: the rest of it is trained on."""
    sheet = np.arange(80).reshape(2, 40)
    tokens = open_tokens(make_config("tokens", arrays("a.npy", x=sheet), block_rows=1), 8, None, VOCABULARY)
    assert tokens.heldout.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert epoch_rows(tokens) == [list(range(first, first + 4)) for first in range(8, 80, 4)]
    assert tokens.account(18) == "data: 8 tokens held out, 72 read to train on (1 times over 72), 0 dropped"


def test_one_document_is_cut(write: Any, make_config: Any, tokenizer: Any) -> None:
    config = make_config("text", write("a.txt", LETTERS * 2), bos="never", block_rows=1)
    tokens = open_tokens(config, 1000, tokenizer, VOCABULARY)
    ids = words(LETTERS * 2)[0]
    assert tokens.heldout.tolist() == [ids[0:4], ids[4:8]], "a fifth"
    assert epoch_rows(tokens) == sorted(ids[first : first + 4] for first in range(8, 52, 4))


def test_ids_of_nanogpt(tmp_path: Path, make_config: Any) -> None:
    np.arange(20, dtype=np.uint16).tofile(tmp_path / "plain.bin")
    header = np.zeros(256, dtype=np.int32)
    header[0] = 20240520
    (tmp_path / "headed.bin").write_bytes(header.tobytes() + np.arange(20, dtype=np.uint16).tobytes())
    for name in ("plain.bin", "headed.bin"):
        tokens = open_tokens(make_config("tokens", str(tmp_path / name)), 4, None, VOCABULARY)
        assert tokens.heldout.tolist() == [[0, 1, 2, 3]]
        assert epoch_rows(tokens) == [list(range(first, first + 4)) for first in range(4, 20, 4)]
    np.arange(600, dtype=np.uint32).tofile(tmp_path / "wide.bin")
    wide = make_config("tokens", str(tmp_path / "wide.bin"))
    refused(r"every other id is 0, as in a file of 32-bit ids; save the ids as \.npy", wide, None, 4, 7000)
    large = make_config("tokens", str(tmp_path / "plain.bin"))
    refused(
        r"ids of 16 bits, and the model's vocabulary of 70000 needs more; save the ids as \.npy", large, None, 4, 70000
    )


# ---- what must be refused --------------------------------------------------------------------------------------------


def refused(
    message: str, config: Any, tokenizer: Any = None, evaluation_tokens: float = 4, vocab_size: int = VOCABULARY
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        open_tokens(config, evaluation_tokens, tokenizer, vocab_size)
    assert "\n" not in str(raised.value)


def test_ids_beyond_the_vocabulary(arrays: Any, make_config: Any) -> None:
    path = arrays("a.npz", tokens=np.array([[1, 2, 3, 4], [5, 6, 100, 7]]))
    refused(
        r"data\.path=.*a\.npz holds token id 100; the model's vocabulary of 100 ends at 99", make_config("tokens", path)
    )
    path = arrays("b.npz", tokens=np.array([1, 2, -3, 4]))
    refused(r"holds token id -3; ", make_config("tokens", path))
    path = arrays("c.npz", tokens=np.full((9, 4), 2**63 + 5, dtype=np.uint64))
    refused(r"holds token id 9223372036854775813; ", make_config("tokens", path))


def test_arrays_that_are_no_ids(arrays: Any, make_config: Any) -> None:
    refused(r"holds float64 values; token ids are integers", make_config("tokens", arrays("a.npy", x=np.zeros((9, 4)))))
    for kind in (bool, str):
        refused(r"values; token ids are integers", make_config("tokens", arrays("e.npy", x=np.zeros((9, 4), kind))))
    for shape in ((2, 2, 2), (), (9, 0), (0, 9)):
        refused(r"shape|a row of 0|has not one row", make_config("tokens", arrays("b.npy", x=np.zeros(shape, int))))
    refused(
        r"data\.field=tokens is no array of .*; it has ids", make_config("tokens", arrays("c.npz", ids=np.arange(9)))
    )
    refused(
        r"a row of 3 tokens, fewer than data\.context=4", make_config("tokens", arrays("d.npy", x=np.ones((9, 3), int)))
    )


def test_numpy_files_are_never_unpickled(arrays: Any, write: Any, make_config: Any) -> None:
    objects = np.array([[1, 2], [3]], dtype=object)
    refused(r"cannot be read as a numpy file of plain numbers", make_config("tokens", arrays("a.npy", x=objects)))
    refused(r"cannot be read as a numpy file of plain numbers", make_config("tokens", arrays("a.npz", tokens=objects)))
    refused(
        r"cannot be read as a numpy file of plain numbers", make_config("tokens", write("b.npz", b"PK\x03\x04torn"))
    )
    refused(r"cannot be read as a numpy file of plain numbers", make_config("tokens", write("b.npy", b"")))


@pytest.mark.parametrize(
    ("kind", "name"), [("text", "a.txt"), ("tokens", "a.npz"), ("tokens", "a.npy"), ("tokens", "a.arrow"), ("hub", "a")]
)
def test_files_that_are_not_there(tmp_path: Path, make_config: Any, tokenizer: Any, kind: str, name: str) -> None:
    refused(rf"^data\.path=.*{name} does not exist$", make_config(kind, str(tmp_path / name)), tokenizer)


def test_a_held_out_file_that_is_not_there(
    write: Any, arrays: Any, tmp_path: Path, make_config: Any, tokenizer: Any
) -> None:
    gone = str(tmp_path / "gone.npz")
    for config in (
        make_config("text", write("a.txt", "abc"), heldout_path=gone),
        make_config("tokens", arrays("a.npz", tokens=np.arange(9)), heldout_path=gone),
    ):
        refused(r"^data\.heldout_path=.*gone\.npz does not exist$", config, tokenizer)


def test_paths_that_name_no_text_file(tmp_path: Path, make_config: Any, tokenizer: Any) -> None:
    refused(r"data\.path=.*\*\.txt matches no file", make_config("text", str(tmp_path / "*.txt")), tokenizer)
    refused(r"is a folder without a file of text", make_config("text", str(tmp_path)), tokenizer)
    refused(r"must be a file, a glob or a list", make_config("text", 7), tokenizer)
    refused(r"must be one path", make_config("tokens", ["a", "b"]), tokenizer)
    for kind in ("text", "hub", "tokens"):
        refused(rf"data\.path is needed with data\.kind={kind}", make_config(kind), tokenizer)


def test_text_that_cannot_be_read(write: Any, make_config: Any, tokenizer: Any) -> None:
    refused(r"a\.txt is not UTF-8 text", make_config("text", write("a.txt", b"ab\xff")), tokenizer)
    refused(r"b\.jsonl line 2 is not JSON", make_config("text", write("b.jsonl", jsonl(["a"]) + "{")), tokenizer)
    refused(r"line 1 is not JSON", make_config("text", write("c.jsonl", b'{"text": "\xff"}')), tokenizer)
    refused(r"line 1 must be an object", make_config("text", write("d.jsonl", "[1]")), tokenizer)
    missing = make_config("text", write("e.jsonl", jsonl(["a"], "body")))
    refused(r"line 1 has no field data\.field=text; it has body, id", missing, tokenizer)
    refused(r"data\.field=text holds list, not text", make_config("text", write("f.jsonl", jsonl([[1]]))), tokenizer)


def test_text_without_a_tokenizer(write: Any, make_config: Any) -> None:
    refused(r"data\.path=.* is text, and the model has no tokenizer", make_config("text", write("a.txt", "abc")))
    refused(r"data\.kind=demo is text, and the model has no tokenizer", make_config("demo"))


def test_bos_where_there_is_none(write: Any, make_config: Any, make_tokenizer: Any) -> None:
    config = make_config("text", write("a.jsonl", jsonl(["abcdefgh"] * 9)), bos="always")
    refused(r"data\.bos=always, but the model has no tokenizer with a BOS", config, make_tokenizer(bos_token_id=None))
    assert (open_tokens(config, 4, make_tokenizer(), VOCABULARY).heldout[:, 0] == BOS).all()


def test_bos_is_left_out_on_demand(write: Any, make_config: Any, make_tokenizer: Any) -> None:
    path = write("a.jsonl", jsonl(["abcdefgh"] * 9))
    for config, tokenizer in (
        (make_config("text", path, bos="never"), make_tokenizer()),
        (make_config("text", path, bos="auto"), make_tokenizer(bos_token_id=None)),
    ):
        assert open_tokens(config, 4, tokenizer, VOCABULARY).heldout.tolist() == words("abcd")


def test_token_rows_must_begin_with_bos_where_that_is_asked(arrays: Any, make_config: Any, tokenizer: Any) -> None:
    path = arrays("a.npz", tokens=np.array([[1, 5, 6, 7]] * 5 + [[5, 6, 7, 8]]))
    refused(
        r"data\.bos=always, but .*a\.npz has rows", make_config("tokens", path, bos="always", block_rows=5), tokenizer
    )
    path = arrays("b.npz", tokens=np.array([[1, 5, 6, 7]] * 5))
    assert open_tokens(make_config("tokens", path, bos="always"), 4, tokenizer, VOCABULARY).heldout.shape == (1, 4)


def test_too_little_data(write: Any, arrays: Any, make_config: Any, tokenizer: Any) -> None:
    refused(r"has not one row of data\.context=4 tokens", make_config("text", write("a.txt", "")), tokenizer)
    refused(r"has not one row of data\.context=4 tokens", make_config("text", write("b.txt", "ab")), tokenizer)
    one = make_config("tokens", arrays("a.npy", x=np.arange(4)), block_rows=3)
    refused(r"data\.path=.*a\.npy has no row of 4 tokens to train on beside the 1 held out", one)
    five = make_config("tokens", arrays("b.npy", x=np.arange(20)), block_rows=3)
    empty = make_config("tokens", five.path, heldout_path=arrays("e.npy", x=np.arange(3)))
    refused(r"data\.heldout_path=.* has not one row", empty)


def test_a_small_source_gives_a_fifth_of_itself(arrays: Any, make_config: Any, tokenizer: Any) -> None:
    tokens = open_tokens(make_config("tokens", arrays("a.npy", x=np.arange(40)), block_rows=3), 1e6, tokenizer, 100)
    assert tokens.heldout.tolist() == np.arange(8).reshape(2, 4).tolist()
    assert sorted(map(tuple, tokens.training.block(0)[0].tolist())) <= sorted(
        map(tuple, np.arange(8, 40).reshape(8, 4).tolist())
    )


def test_a_source_shorter_than_a_block_repeats_in_it(arrays: Any, make_config: Any, tokenizer: Any) -> None:
    config = make_config("tokens", arrays("a.npy", x=np.arange(12)), block_rows=5)
    rows, epoch = open_tokens(config, 4, tokenizer, 100).training.block(0)
    assert (rows.shape, epoch) == ((5, 4), 0)
    assert {tuple(row) for row in rows.tolist()} == {(4, 5, 6, 7), (8, 9, 10, 11)}


def test_long_files_are_documents_of_bounded_length(write: Any, make_config: Any, tokenizer: Any) -> None:
    """So that the first of them can be held out, and no file need be in memory at once."""
    line = "abc " * 10 + "\n"
    path = write("long.txt", line * 2_000)
    origin = Origin("data.path", str(path), None, "data.split", "train", Wanted("text"))
    documents = list(text_records([Path(path)], origin))
    assert "".join(documents) == line * 2_000
    assert all(PIECE_CHARACTERS <= len(d) < PIECE_CHARACTERS + len(line) for d in documents[:-1])
    assert len(documents) == 5


def test_a_held_out_set_that_is_trained_on(write: Any, tmp_path: Path, make_config: Any, tokenizer: Any) -> None:
    path = write("a.txt", "abc")
    refused(r"is the training data, which cannot be held out", make_config("text", path, heldout_path=path), tokenizer)
    overlapping = make_config("text", str(tmp_path / "*.txt"), heldout_path=[path])
    refused(r"names files of data\.path too, such as .*a\.txt", overlapping, tokenizer)
    same = make_config("hub", str(tmp_path), heldout_split="train")
    refused(r"data\.path=.* \(data\.heldout_split=train\) is the training data", same, tokenizer)


def test_a_slice_of_what_is_trained_on_is_not_held_out(make_config: Any, tokenizer: Any, tmp_path: Path) -> None:
    for split, heldout in (("train", "train[:10%]"), ("train[:10%]", "train"), ("train+test", "test")):
        asked = make_config("hub", str(tmp_path), split=split, heldout_split=heldout)
        refused(r"is the training data, which cannot be held out", asked, tokenizer)
    check_data(make_config("hub", str(tmp_path), split="train[10%:]", heldout_split="train[:10%]"))


def test_held_out_ids_may_not_be_the_training_ids_by_another_name(
    make_config: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "ids.npy", np.arange(8, dtype=np.int32).reshape(2, 4))
    monkeypatch.chdir(tmp_path)
    config = make_config("tokens", "ids.npy", heldout_path=str(tmp_path / "ids.npy"))
    refused(r"is the training data, which cannot be held out", config, tokenizer)


def test_keys_that_would_not_be_read(write: Any, arrays: Any, make_config: Any, tokenizer: Any) -> None:
    refused(r"data\.path=x is not read with data\.kind=demo", make_config("demo", "x"), tokenizer)
    refused(r"data\.heldout_split=test is not read", make_config("demo", heldout_split="test"), tokenizer)
    text = make_config("text", write("a.txt", "abc"), heldout_split="test")
    refused(r"data\.heldout_split=test is not read with data\.kind=text \(it is with hub, tok", text, tokenizer)
    ids = make_config("tokens", arrays("a.npy", x=np.arange(9)), heldout_split="test")
    refused(r"data\.heldout_split=test: files have no splits", ids, tokenizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "web"}, r"data\.kind=web is not one of activations, demo, given, hub, text, tokens, toy"),
        ({"bos": "yes"}, r"data\.bos=yes is not one of auto, always, never"),
        ({"context": 1}, r"data\.context=1 must be at least 2"),
        ({"seed": -1}, r"data\.seed=-1 must be at least 0"),
        ({"window_rows": 0}, r"data\.window_rows=0 must be at least 1"),
        ({"block_rows": 0}, r"data\.block_rows=0 must be at least 1"),
        ({"rows_per_forward": 0}, r"data\.rows_per_forward=0 must be at least 1"),
        ({"max_norm_ratio": 1.0}, r"data\.max_norm_ratio=1 must be above 1, auto, or null"),
    ],
)
def test_impossible_values(make_config: Any, tokenizer: Any, changes: dict[str, Any], message: str) -> None:
    refused(message, make_config(**({"kind": "demo"} | changes)), tokenizer)


@pytest.mark.parametrize("asked", [0, -5, float("nan"), float("inf")])
def test_impossible_evaluation(make_config: Any, tokenizer: Any, asked: float) -> None:
    refused(r"evaluation\.tokens=.* must be at least 1", make_config("demo"), tokenizer, evaluation_tokens=asked)


def test_reading_tokens_needs_neither_torch_nor_datasets() -> None:
    program = "import sys, sae_sweep.data.tokens; print(*{'torch', 'datasets', 'transformers'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == ""
