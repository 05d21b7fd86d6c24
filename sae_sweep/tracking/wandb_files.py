"""What an offline wandb run has on disk: a .wandb file is a 7-byte header, then LevelDB's log format.

That is blocks of 32 KiB with records of (crc uint32, length uint16, kind uint8, bytes), cut where a block ends; a
record is a protocol buffer of wandb's. A process that was killed leaves the last ones out, or in part.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
WHOLE, LAST = 1, 4


def last_offline_step(folder: Path, run_id: str) -> int:
    """The last step in the files that runs with this id left in `folder`/wandb; -1 where there is none."""
    files = folder.glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    return max((step for file in files for step in _steps(file)), default=-1)


def _steps(file: Path) -> Iterator[int]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto import wandb_internal_pb2 as messages

    for data in _records(file.read_bytes()):
        record: Any = vars(messages)["Record"]()  # generated without types
        try:
            record.ParseFromString(data)
        except DecodeError:
            return
        if record.WhichOneof("record_type") == "history":
            yield from (int(item.value_json) for item in record.history.item if _key(item) == "_step")


def _key(item: object) -> str:
    key: str = getattr(item, "key", "")
    return key or "/".join(getattr(item, "nested_key", ()))


def _records(data: bytes) -> Iterator[bytes]:
    """The records that are there in full."""
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
            yield pieces
            pieces = b""
