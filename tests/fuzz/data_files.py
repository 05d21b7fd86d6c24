"""Files of text, token ids, conversations and activations that are not what they should be, or hardly."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from tests.fuzz.junk import BYTES, JSON_VALUES, damaged

Write = Callable[[Path], None]

SUFFIXES = (".txt", ".md", ".jsonl", ".JSONL", ".ndjson", ".json", ".csv", ".tsv", ".py", "", ".npy", ".npz", ".bin")
PACKINGS = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": bytes}
DOCUMENTS = (
    "Words.\n",
    "größer\r\n",
    "a,b\n",
    "\x00",
    "x" * 3000,
    "",
    "\ufeff",
    "\x1b[31m",
    "{",
    '"',
    " " * 99,
    "\u2028",
)
IDS: dict[str, Callable[[], Any]] = {
    "sound": lambda: np.arange(4000).reshape(-1, 8) % 250 + 3,
    "stream": lambda: np.arange(4001, dtype=np.uint16) % 250 + 3,
    "float": lambda: np.full((40, 8), 5.5),
    "nan": lambda: np.full((40, 8), np.nan),
    "bool": lambda: np.ones((40, 8), dtype=bool),
    "complex": lambda: np.ones((40, 8), dtype=complex),
    "text": lambda: np.array([["a"] * 8] * 9),
    "objects": lambda: np.array([[1], [2, 3]], dtype=object),
    "times": lambda: np.zeros((40, 8), dtype="M8[s]"),
    "records": lambda: np.zeros(40, dtype=[("a", int), ("b", int)]),
    "empty": lambda: np.zeros((0, 8), dtype=int),
    "no columns": lambda: np.zeros((8, 0), dtype=int),
    "a number": lambda: np.array(5),
    "cube": lambda: np.ones((5, 8, 8), dtype=int),
    "negative": lambda: np.full((40, 8), -1),
    "beyond": lambda: np.full((40, 8), 2**40),
    "unsigned": lambda: np.full((40, 8), 2**64 - 1, dtype=np.uint64),
    "padding": lambda: np.full((40, 8), 2),
    "turned": lambda: np.asfortranarray(np.arange(4000).reshape(-1, 8) % 250 + 3)[::-1],
}
COMPANIONS = ("attention_mask", "labels", "position_ids", "token_type_ids", "special_tokens_mask", "more")


def data_file(random: Random) -> tuple[str, Write, tuple[str, ...]]:
    """A file's name, what writes it, and keys of the command line that reads it."""
    suffix, packing = random.choice(SUFFIXES), random.choice(("",) * 8 + tuple(PACKINGS))
    name = f"d{suffix}{packing}"
    odd = random.random()
    if odd < 0.08:
        return name, random.choice(NO_FILES), (_kind(random),)
    ids = suffix in (".npy", ".npz", ".bin")
    data = _array(suffix, random) if ids else _text(suffix, random)
    if odd < 0.3:
        data = damaged(data, random)
    elif odd < 0.4:
        data = random.choice(BYTES)
    if packing and random.random() < 0.8:
        data = PACKINGS[packing](data)
    kind = "data=tokens" if ids and random.random() < 0.8 else _kind(random)
    field = {"data=tokens": ("data.field=tokens",)}.get(kind, ())
    return name, lambda file: _write(file, data), (kind, *field, *_keys(random))


def _kind(random: Random) -> str:
    return random.choice(("data=text",) * 6 + ("data=tokens", "data=hub"))


def _keys(random: Random) -> tuple[str, ...]:
    """Now and then other keys than are given by themselves."""
    known = (
        *("data.field=text", "data.field=other", "data.max_bad_records=0.5", "data.bos=always", "data.bos=never"),
        *("data.context=63", "data.max_norm_ratio=1.5", "evaluation.tokens=5000", "data.split=train[:5]"),
        *("evaluation.positions=all", "data.heldout_path=d.txt", "sae.lookup=learned"),
    )
    return (random.choice(known),) if random.random() < 0.4 else ()


def _write(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def _loop(file: Path) -> None:
    file.symlink_to(file)


NO_FILES: tuple[Write, ...] = (Path.mkdir, os.mkfifo, _loop, lambda file: file.symlink_to("/dev/zero"), lambda _: None)


def _text(suffix: str, random: Random) -> bytes:
    sound = random.random() < 0.6
    pieces = DOCUMENTS[:2] if sound else DOCUMENTS
    documents = ["".join(random.choices(pieces, k=random.randint(1, 9))) for _ in range(random.choice((1, 60)))]
    if suffix.lower() in (".jsonl", ".ndjson", ".json"):
        records: list[Any] = [{"text": document} for document in documents]
        if not sound:
            records[random.randrange(len(records))] = random.choice(JSON_VALUES)
            records[random.randrange(len(records))] = {"text": random.choice(JSON_VALUES)}
        whole = suffix == ".json" and random.random() < 0.7
        return (json.dumps(records) if whole else "\n".join(map(json.dumps, records))).encode()
    if suffix in (".csv", ".tsv"):
        table = io.StringIO()
        writer = csv.writer(table, delimiter="\t" if suffix == ".tsv" else ",")
        writer.writerows([["n", "text"], *([number, document] for number, document in enumerate(documents))])
        return table.getvalue().encode()
    return "\n\n".join(documents * 5).encode(random.choice(("utf-8",) * 6 + ("utf-16", "latin-1")), "replace")


def _array(suffix: str, random: Random) -> bytes:
    kind = random.choice(("sound",) * 5 + tuple(IDS))
    ids = IDS[kind]()
    if suffix == ".bin":
        return bytes(ids.astype("<u2").tobytes()) if ids.dtype.kind in "iu" else b"\x07" * 999
    file = io.BytesIO()
    if suffix == ".npy":
        np.save(file, ids)
        return file.getvalue()
    beside = {name: _beside(ids, random) for name in random.sample(COMPANIONS, random.choice((0, 0, 1, 2)))}
    np.savez(file, **{random.choice(("tokens",) * 5 + ("ids",)): ids}, **beside)
    return file.getvalue()


def _beside(ids: Any, random: Random) -> Any:
    """An array beside ids that may say what they mean."""
    made = (np.ones(ids.shape, dtype=int), np.zeros(ids.shape, dtype=int), np.ones(3), np.full(ids.shape, np.nan))
    if ids.ndim == 2:
        made += (np.arange(ids.size).reshape(ids.shape) % 5, np.tile(np.arange(ids.shape[1]), (len(ids), 1)))
    return random.choice(made)


ACTIVATIONS: dict[str, Callable[[], Any]] = {
    "sound": lambda: np.random.default_rng(0).standard_normal((80, 8, 6), dtype=np.float32),
    "flat": lambda: np.random.default_rng(0).standard_normal((640, 6)),
    "half": lambda: np.random.default_rng(0).standard_normal((80, 8, 6)).astype(np.float16),
    "one number": lambda: np.ones((80, 8, 1), dtype=np.float32),
    "zeros": lambda: np.zeros((80, 8, 6), dtype=np.float32),
    "huge": lambda: np.full((80, 8, 6), 3e38, dtype=np.float32),
    "nan": lambda: np.full((80, 8, 6), np.nan, dtype=np.float32),
    "whole": lambda: np.ones((80, 8, 6), dtype=int),
    "short": lambda: np.ones((2, 8, 6), dtype=np.float32),
    "other rows": lambda: np.ones((80, 12, 6), dtype=np.float32),
    "four axes": lambda: np.ones((4, 4, 8, 6), dtype=np.float32),
    "none": lambda: np.zeros((0, 8, 6), dtype=np.float32),
}
ROLES = ("user", "assistant", "system", "tool", "", None, 3)


def stored_file(random: Random) -> tuple[str, Write, tuple[str, ...]]:
    """A file's name, what writes it, and keys of the command line that reads it."""
    suffix = random.choice((".npy", ".npz", ".safetensors", ".parquet", ".arrow", ".txt", ""))
    name, odd = f"d{suffix}", random.random()
    if odd < 0.08:
        return name, random.choice(NO_FILES), ()
    x = ACTIVATIONS[random.choice(("sound",) * 6 + tuple(ACTIVATIONS))]()
    data = _stored(suffix, x, random) if odd < 0.9 else random.choice(BYTES)
    if odd < 0.25:
        data = damaged(data, random)
    known = (
        "data.field=other",
        "data.context=12",
        "data.max_norm_ratio=1.1",
        "data.heldout_path=d.npy",
        "site.layer=1",
    )
    known += ("data.cache=c", "sae.lookup=learned", "evaluation.tokens=5000", "data.max_norm_ratio=null")
    return name, lambda file: _write(file, data), (random.choice(known),) if random.random() < 0.4 else ()


def _stored(suffix: str, x: Any, random: Random) -> bytes:
    beside = {
        name: _beside(x[..., 0], random) for name in random.sample(("tokens", "mask", "more"), random.choice((0, 0, 1)))
    }
    arrays = {random.choice(("activations",) * 5 + ("x",)): x, **beside}
    file = io.BytesIO()
    if suffix == ".npz":
        np.savez(file, **arrays)
    elif suffix == ".safetensors":
        return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
    elif suffix == ".parquet":
        pq.write_table(
            pa.table({name: list(array.tolist()) for name, array in arrays.items() if len(array) == len(x)}), file
        )
    else:
        np.save(file, x)
    return file.getvalue()


def chat_file(random: Random) -> tuple[str, Write, tuple[str, ...]]:
    """The same of a file of conversations."""
    sound = random.random() < 0.5
    records = [_conversation(random, sound) for _ in range(60)]
    for _ in range(0 if sound else 2):
        records[random.randrange(len(records))] = random.choice(JSON_VALUES)
    suffix = random.choice((".jsonl", ".json", ".ndjson", ".csv", ".txt"))
    whole = suffix == ".json" and random.random() < 0.5
    data = (json.dumps(records) if whole else "\n".join(map(json.dumps, records))).encode()
    known = ("data.positions_of=assistant", "data.positions_of=user", "data.positions_of=nobody", "data.field=other")
    known += ("data.packing=document", "data.max_bad_records=0.9", "data.filter={role:user}", "data.filter={a:1}")
    return f"d{suffix}", lambda file: _write(file, data), tuple(random.sample(known, random.choice((0, 1, 2))))


def _conversation(random: Random, sound: bool) -> Any:
    roles = ("user", "assistant") if sound else ROLES
    messages = [
        {"role": random.choice(roles), "content": "".join(random.choices(DOCUMENTS[:3] if sound else DOCUMENTS, k=3))}
        for _ in range(random.randint(1, 4))
    ]
    if not sound and random.random() < 0.3:
        messages[0] = random.choice(({"role": "user"}, {"content": 3, "role": "user"}, "words", None, {"from": "gpt"}))
    return {random.choice(("messages",) * 5 + ("conversations", "text")): messages, "role": "user"}
