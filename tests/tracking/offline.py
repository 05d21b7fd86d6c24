"""What runs of wandb hold, read from the files that it writes offline: a reader that shares nothing with ours."""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import psutil

BLOCK, HEADER = 32768, 7


def wandb_records(file: Path) -> Iterator[Any]:
    """Records of a .wandb file: a 7-byte header, then a log of 32 KiB blocks whose records may be in pieces."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, whole = file.read_bytes(), HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        position += HEADER
        whole += data[position : position + length]
        position += length
        if kind in (1, 4):  # a whole record, or its last piece
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def entries(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_run(file: Path) -> dict[str, Any]:
    run: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "axes": {}, "exit": None}
    for record in wandb_records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run |= {"name": record.run.display_name, "group": record.run.run_group, "job_type": record.run.job_type}
            run |= {"id": record.run.run_id, "project": record.run.project, "entity": record.run.entity}
            run |= {"tags": list(record.run.tags), "notes": record.run.notes, "sweep_id": record.run.sweep_id}
            run["config"] |= entries(record.run.config.update)
        elif kind == "config":
            run["config"] |= entries(record.config.update)
        elif kind == "history":
            run["history"].append(entries(record.history.item))
        elif kind == "summary":
            run["summary"] |= entries(record.summary.update)
        elif kind == "metric":
            run["axes"][record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            run["exit"] = record.exit.exit_code
        elif kind == "alert":
            run["alert"] = (record.alert.title, record.alert.text, record.alert.level)
        elif kind == "artifact":
            run.setdefault("artifacts", {})[record.artifact.name] = record.artifact.type
        elif kind == "stats":
            run["stats"] = run.get("stats", 0) + 1
        elif kind == "preempting":
            run["preempting"] = True
    return run


def settle() -> None:
    """wandb's own end of all runs. Its service process, now and then, does not exit when told to: it is then ended."""
    ending = Thread(target=sys.modules["wandb"].teardown, daemon=True)
    ending.start()
    ending.join(20)
    if ending.is_alive():
        for child in psutil.Process().children(recursive=True):
            if "wandb" in child.name():
                child.kill()
        ending.join(20)


def await_stats(folder: Path) -> None:
    """Until wandb has looked at the machine once, which a thread of its own does when it comes to it."""
    files, end = "wandb/offline-run-*/run-*.wandb", monotonic() + 20
    while not any("stats" in read_run(file) for file in folder.glob(files)) and monotonic() < end:
        sleep(0.05)


def read_runs(folder: Path) -> dict[str, dict[str, Any]]:
    """Runs by name; what several commands wrote of one is put together in the order of its files."""
    settle()  # files may be written a moment after a run is finished, but not after this
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        run = read_run(file)
        if "name" not in run:  # its process was killed before anything was written
            continue
        before = found.get(run["name"])
        if before is not None:
            assert before["id"] == run["id"]
            run["history"] = before["history"] + run["history"]
        found[run["name"]] = run
    return found


def in_full(file: Path) -> list[dict[str, Any]]:
    """The history of a file that ends in the middle: the last record is not there in full."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    history, records = [], wandb_records(file)
    while True:
        try:
            record = next(records, None)
        except DecodeError:
            return history
        if record is None:
            return history
        if record.WhichOneof("record_type") == "history":
            history.append(entries(record.history.item))
