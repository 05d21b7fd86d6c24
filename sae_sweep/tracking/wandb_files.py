"""What an offline wandb run has on disk: a .wandb file is a 7-byte header, then LevelDB's log format.

That is blocks of 32 KiB with records of (crc uint32, length uint16, kind uint8, bytes), cut where a block ends; a
record is a protocol buffer of wandb's. A process that was killed leaves the last ones out, or in part.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from sae_sweep.folder.files import replacing

BLOCK, HEADER = 32768, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
START = b":W&B" + struct.pack("<HB", 0xBEE1, 0)
"""Of a file."""


def cut_offline(folder: Path, run_id: str, step: float, but: Path) -> int:
    """Take the history from `step` on out of the files that a run with this id left in `folder`/wandb, but for one; the
    last step that is left in them, -1 for none.

    A file that its dead process' helper still writes to is replaced, so what comes of that is nobody's.
    """
    last = -1
    for file in sorted(folder.glob(f"wandb/offline-run-*-{run_id}*/run-{run_id}*.wandb")):
        if file.resolve() != but.resolve():
            last = max(last, _cut(file, step))
    return last


def _cut(file: Path, step: float) -> int:
    data, end, last = file.read_bytes(), HEADER, -1
    for record, after in _records(data):
        found = _step(record)
        if found is not None and found >= step:
            break
        if found is not None:
            last = found
        end = after
    if end < len(data):
        with replacing(file) as temporary:
            temporary.write_bytes(data[:end])
    return last


def write_records(file: Path, records: Iterable[Any]) -> None:
    """Write a file of wandb's messages."""
    data = bytearray(START)
    for record in records:
        left, first = record.SerializeToString(), True
        while first or left:
            room = BLOCK - len(data) % BLOCK
            if room <= HEADER:
                data += b"\0" * room
                continue
            piece, left = left[: room - HEADER], left[room - HEADER :]
            kind = (WHOLE if first else LAST) if not left else (FIRST if first else MIDDLE)
            data += struct.pack("<IHB", crc32(piece, crc32(bytes([kind]))), len(piece), kind) + piece
            first = False
    file.write_bytes(data)


def new_record() -> Any:
    """An empty message."""
    from wandb.proto import wandb_internal_pb2 as messages

    return vars(messages)["Record"]()  # generated without types


def _step(data: bytes) -> int | None:
    """Of a record of the history; None of others."""
    record = _parsed(data)
    if record is None or record.WhichOneof("record_type") != "history":
        return None
    return next((int(item.value_json) for item in record.history.item if _key(item) == "_step"), None)


def _parsed(data: bytes) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    record = new_record()
    try:
        record.ParseFromString(data)
    except DecodeError:
        return None
    return record


def _key(item: object) -> str:
    key: str = getattr(item, "key", "")
    return key or "/".join(getattr(item, "nested_key", ()))


def _records(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The records that are there in full, each with where it ends."""
    position, pieces = HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += HEADER
        if kind not in range(WHOLE, LAST + 1) or position + length > len(data):
            return
        pieces += data[position : position + length]
        position += length
        if kind in (WHOLE, LAST):
            yield pieces, position
            pieces = b""
