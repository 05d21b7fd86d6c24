"""The resume state in a sweep folder: which checkpoints there are, whole or damaged, and of whom.

    <sweep>/.state/
      lock                           who trains here (`folder/lock.py`)
      progress.json                  how far the group in training is, every few seconds
      tasks/                         groups given to workers elsewhere, each with a lock and progress of its own
      <group>-<members>/             of members that train together
        00000003/                    one checkpoint: it has this name once all of it is on disk
          state.json                 each member's place in its run and in the stream, and checksums
          <identity>.safetensors     its tensors (`training/step/member.py`)

The two newest checkpoints are kept, so that a damaged one has another to go back to. No torch here.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from secrets import token_hex
from time import time
from typing import Any

from sae_sweep.folder.files import sync, write_text_atomic
from sae_sweep.folder.names import CHECKPOINT, PROGRESS, STATE, TASKS
from sae_sweep.folder.sweep import state_place
from sae_sweep.host.json_files import read_object

VERSION = 1
KEPT = 2
READ_BYTES = 2**22


class Damaged(Exception):  # noqa: N818 - what was found
    """A checkpoint cannot be used; the message says why, in a few words."""


@dataclass(frozen=True)
class MemberRecord:
    """Where one member was; its tensors are in its file."""

    identity: str
    label: str
    step: int
    blocks: int
    dense: bool
    failed: str | None
    batches: int
    """Batches that its bank has taken of the block it is in."""
    judged_tokens: int
    lines: int
    """Bytes of its metrics.jsonl."""
    good_step: int | None
    """The step of the last state of it that was finite: this one, or that in the file `good`; None if none was."""
    entries: int = 0
    """(Token, latent) pairs with a gradient when it last looked."""
    most_dead: int = 0
    """As many latents as can be dead before it looks again."""
    crowd: int = 1
    """Times the room that its lists were expected to need."""
    crc32: str = ""
    """Of its file."""

    @property
    def file(self) -> str:
        """The name of the file with its resume state."""
        return f"{self.identity}.safetensors"

    @property
    def good(self) -> str:
        """The file of its last good state."""
        return self.file if self.good_step == self.step else self.good_file

    @property
    def good_file(self) -> str:
        """The file of a last good state that is not this one."""
        return f"{self.identity}.good.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, as its state.json says; its files may still be damaged."""

    folder: Path
    block: int
    """The block of the stream that comes next, or that the members are in."""
    stamp: str
    """Of the stream (`GroupRun`): what it was trained on."""
    time: float
    """Seconds since 1970."""
    members: tuple[MemberRecord, ...]

    @property
    def step(self) -> int:
        """Of the member that is furthest."""
        return max(member.step for member in self.members)

    def verify(self, members: Sequence[MemberRecord] | None = None) -> None:
        """Raises Damaged where a file, of all members or of these, is not what was written."""
        for member in self.members if members is None else members:
            try:
                found = checksum(self.folder / member.file)
            except OSError as error:
                raise Damaged(f"{member.label}: {error.strerror}") from error
            if found != member.crc32:
                raise Damaged(f"{member.label}: its checksum is wrong")


def read_checkpoint(folder: Path) -> Checkpoint:
    """What state.json says. Raises Damaged."""
    try:
        entries = read_object(folder / CHECKPOINT)
        state = entries["state"]
        if entries["crc32"] != _crc(state):
            raise Damaged(f"the checksum of {CHECKPOINT} is wrong")
        if state["version"] != VERSION:
            raise Damaged(f"it is of version {state['version']}, and this program reads version {VERSION}")
        members = tuple(MemberRecord(**member) for member in state["members"])
        return Checkpoint(folder, state["block"], state["stamp"], state["time"], members)
    except OSError as error:
        raise Damaged(f"{CHECKPOINT}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{CHECKPOINT} cannot be read") from error


def write_state(checkpoint: Checkpoint) -> None:
    """Write state.json into the checkpoint's folder."""
    state = {"version": VERSION, **asdict(checkpoint)}
    del state["folder"]
    text = json.dumps({"crc32": _crc(state), "state": state}, indent=1)
    (checkpoint.folder / CHECKPOINT).write_text(text + "\n", encoding="utf-8")


def checksum(file: Path) -> str:
    """CRC-32 of a whole file, in hex digits."""
    crc = 0
    with file.open("rb") as opened:
        while some := opened.read(READ_BYTES):
            crc = zlib.crc32(some, crc)
    return f"{crc:08x}"


class StateFolder:
    """`.state` of one sweep, as the process that has it to itself, or the worker of a task, sees it."""

    def __init__(self, root: Path, task: str | None = None) -> None:
        self.path = root / STATE
        self._progress = state_place(root, task) / PROGRESS

    def company(self, key: str, identities: Sequence[str]) -> "Company":
        """Of the members of group `key` that train together."""
        members = hashlib.sha256(" ".join(identities).encode()).hexdigest()
        return Company(self.path / f"{key}-{members[:12]}")

    def companies(self) -> list["Company"]:
        """All that are there."""
        return [Company(path) for path in sorted(self.path.glob("*")) if path.is_dir() and path.name != TASKS]

    def homes(self) -> dict[str, Checkpoint]:
        """By identity, the checkpoint in which the member is furthest."""
        return _furthest(company.newest for company in self.companies())

    def unreadable(self) -> list[Path]:
        """Folders of checkpoints of which no state.json can be read, so that nobody knows of whom they are."""
        return [company.path for company in self.companies() if company.folders() and company.newest is None]

    def prune(self, done: Collection[str]) -> None:
        """Remove what no member needs: it is among those `done`, or further elsewhere."""
        found = [(company, company.newest) for company in self.companies()]  # other tasks' workers go on to add some
        homes = _furthest(newest for _, newest in found)
        needed = {checkpoint.folder.parent for identity, checkpoint in homes.items() if identity not in done}
        for company, newest in found:
            if newest is not None and company.path not in needed:
                shutil.rmtree(company.path)
        self._progress.unlink(missing_ok=True)

    def beat(self, entries: Mapping[str, Any]) -> None:
        """Write progress.json: what is lost with it is nothing, so a disk that takes no more is not worth an error."""
        try:
            self._progress.parent.mkdir(exist_ok=True)
            write_text_atomic(self._progress, json.dumps({"time": time(), **entries}) + "\n", durable=False)
        except OSError:
            pass

    def progress(self) -> dict[str, Any]:
        """The last beat; empty where there is none."""
        try:
            entries = read_object(self._progress)
        except (OSError, ValueError):
            return {}
        steps, numbers = entries.get("steps", {}), (entries.get("time"), entries.get("eta") or 0)
        whole = isinstance(steps, dict) and all(isinstance(step, int) for step in steps.values())
        said = isinstance(entries.get("doing") or "", str) and all(
            isinstance(each, int | float) and isfinite(each) for each in numbers
        )
        return entries if whole and said else {}


class Company:
    """The checkpoints of members that train together."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folders(self) -> list[Path]:
        """Of whole checkpoints, the newest first."""
        try:
            return sorted((p for p in self.path.iterdir() if p.name.isdecimal()), reverse=True)
        except FileNotFoundError:  # none yet, or removed while somebody looks
            return []

    @property
    def newest(self) -> Checkpoint | None:
        """The newest whose state.json can be read."""
        for folder in self.folders():
            try:
                return read_checkpoint(folder)
            except Damaged:
                continue
        return None

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """A folder to fill, which becomes the newest checkpoint once the block ends without an error.

        Then it is on disk, and all but the two newest are removed. Raises OSError; what was there stays.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.sweep_up()
        there = self.folders()
        name = f"{int(there[0].name) + 1 if there else 1:08d}"
        temporary = self.path / f".{name}.{token_hex(4)}.tmp"
        temporary.mkdir()
        try:
            yield temporary
            for file in temporary.iterdir():
                sync(file)
            sync(temporary)
            temporary.replace(self.path / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for folder in (self.path, self.path.parent, self.path.parent.parent):
            sync(folder)
        for folder in self.folders()[KEPT:]:
            _remove(folder)

    def drop_oldest(self) -> bool:
        """Make room by the oldest, if it is not the only one."""
        folders = self.folders()
        if len(folders) > 1:
            _remove(folders[-1])
        return len(folders) > 1

    def sweep_up(self) -> None:
        """Remove what a killed process was writing, or removing."""
        for path in self.path.glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def _furthest(checkpoints: Iterable[Checkpoint | None]) -> dict[str, Checkpoint]:
    """By identity, the checkpoint among these in which the member is furthest; the first of several."""
    found: dict[str, tuple[int, Checkpoint]] = {}
    for checkpoint in filter(None, checkpoints):
        for member in checkpoint.members:
            if member.identity not in found or member.step > found[member.identity][0]:
                found[member.identity] = (member.step, checkpoint)
    return {identity: checkpoint for identity, (_, checkpoint) in found.items()}


def _remove(folder: Path) -> None:
    """First its name, so that no half of it can be taken for a whole."""
    gone = folder.with_name(f".{folder.name}.{token_hex(4)}.tmp")
    os.replace(folder, gone)
    shutil.rmtree(gone)


def _crc(state: Any) -> str:
    return f"{zlib.crc32(json.dumps(state, sort_keys=True).encode()):08x}"
