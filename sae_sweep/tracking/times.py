"""times.jsonl: when each logged step was taken, by the wall clock. It is beside metrics.jsonl, which is a result, and
no two runs have the same."""

import json
from contextlib import suppress
from pathlib import Path

from sae_sweep.folder.files import replacing
from sae_sweep.tracking import jsonl


def append(file: Path, step: int, moment: float) -> None:
    """Note when a step was taken, in seconds since the epoch. Where the disk takes no more, nobody knows it later."""
    with suppress(OSError):
        jsonl.append(file, {"step": step, "time": round(moment, 6)})


def read(file: Path) -> dict[int, float]:
    """Seconds since the epoch by step; nothing of a line that is not whole."""
    return {line["step"]: line["time"] for line in jsonl.read_whole(file)}


def cut_back(file: Path, step: int) -> None:
    """Take out what is not before this step: it will be taken again."""
    lines = jsonl.read_whole(file)
    kept = [line for line in lines if line["step"] < step]
    if len(kept) < len(lines):
        with replacing(file) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
