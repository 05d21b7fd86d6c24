"""Activations kept on disk, so that who reads a stream again need not run the model: bit for bit what was harvested.

A file is one block at one site, in the order it is trained in, so a further site costs its own files only. It says in
its header which rows and weights it came from and the checksum of its numbers; one that is damaged, or came from
other rows, is harvested and written again. Bits also depend on what kind of processor computed them: a folder is of
one kind of GPU, or of CPUs, among which instruction sets and numbers of threads are not told apart.

Processes may share a folder: files appear whole, and two that write the same one write the same bytes.
"""

import json
import logging
import re
import shutil
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sae_sweep.activations.cache_folder import (
    ABOUT,
    TOKENS,
    block_file,
    cache_entries,
    cache_key,
    files_there,
)
from sae_sweep.activations.stream import BlockRows, Gather
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError, one_line
from sae_sweep.folder.files import clear_leftovers, replacing, write_json_atomic
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.plan.schedules import blocks_needed
from sae_sweep.plan.sizes import bytes_text

ACTIVATIONS = "activations"

log = logging.getLogger(__name__)


def open_cache(members: Sequence[MemberConfig], models: Sequence[LanguageModel]) -> "BlockCache | None":
    """The cache of the stream that members of these configs read; None where `data.cache` is null."""
    config, device = members[0], models[0].device
    if config.data.cache is None:
        return None
    folder = Path(config.data.cache).expanduser() / f"{cache_key(config)}-{_device_name(device)}"
    commits = [str(getattr(model.module.config, "_commit_hash", None)) for model in models]
    return BlockCache(folder, cache_entries(config), device, "-".join(commits), members)


class BlockCache:
    """The activations of one stream in a folder."""

    def __init__(
        self,
        folder: Path,
        entries: dict[str, Any],
        device: torch.device,
        commit: str,
        members: Sequence[MemberConfig],
    ) -> None:
        """`entries` are what the folder's key is of; `commit` that of a hub model; `members` say how much is read."""
        self.folder = folder
        self._about = folder / f"{ABOUT}.json"
        self._entries = entries
        self._device = device
        self._commit = commit
        self._members = tuple(members)
        self._begun = self._said_other = False
        self._writing = True

    def recall(self, rows: BlockRows, hooks: Sequence[str], gather: Gather) -> dict[str, Tensor]:
        """The rows' activations [B, d] by hook, read where they are there, else gathered in one go and written.

        The first call says how much will be written. Raises ConfigError where it would not fit or cannot begin.
        """
        stamp = self._stamp(rows)
        found = {hook: x_BD for hook in hooks if (x_BD := self._read(rows.index, hook, stamp)) is not None}
        missing = [hook for hook in hooks if hook not in found]
        made = gather(rows, missing) if missing else {}
        block = {hook: (made if hook in made else found)[hook] for hook in hooks}
        if not self._begun:
            self._begin(block)
        if made and self._writing:
            self._write_block(rows, made, stamp)
        return block

    def holds(self, index: int, hooks: Sequence[str]) -> bool:
        """Whether there is a file of the block at each of these hooks; what is in it is seen when it is read."""
        return all(block_file(self.folder, index, hook).is_file() for hook in hooks)

    def _stamp(self, rows: BlockRows) -> str:
        """Hash of what the rows are, which positions count, their order and the weights' commit."""
        stamp = blake2b(self._commit.encode(), digest_size=16)
        for tensor in (rows.tokens_RT, rows.counted_RT, rows.places_B):
            stamp.update(str(tuple(tensor.shape)).encode())
            stamp.update(tensor.contiguous().numpy().data)
        return stamp.hexdigest()

    def _read(self, index: int, hook: str, stamp: str) -> Tensor | None:
        """A block at a site on the model's device; None where it is not there or cannot be used, which is said."""
        file = block_file(self.folder, index, hook)
        try:
            with safe_open(file, framework="pt") as opened:
                about = json.loads((opened.metadata() or {}).get(ABOUT, "{}"))
                if about.get("rows") != stamp:
                    self._say_other(file)
                    return None
                x_BD: Tensor = opened.get_tensor(ACTIVATIONS).clone()  # else it stays a view of the file
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, SafetensorError, ValueError) as error:
            _say_damaged(file, one_line(error))
            return None
        if _checksum(x_BD) != about.get("crc32"):
            _say_damaged(file, "its checksum is wrong")
            return None
        return x_BD.to(self._device)

    def _begin(self, block: dict[str, Tensor]) -> None:
        """Say what will be written, see that it fits, and make the folder; nothing where all is there already."""
        self._begun = True
        clear_leftovers(self.folder)
        blocks = blocks_needed(self._members, len(next(iter(block.values()))))
        absent = {hook: blocks - files_there(self.folder, [hook], blocks) for hook in block}
        needed = sum(absent[hook] * x_BD.nbytes for hook, x_BD in block.items())
        if needed == 0:
            return
        each = sum(x_BD.nbytes for x_BD in block.values())
        place = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(place).free
        size = f"{blocks} blocks x {bytes_text(each)} = {bytes_text(blocks * each)}"
        if needed > free:
            raise ConfigError(
                f"data.cache={self.folder.parent}: about {size} of activations, {bytes_text(needed)} of them still to"
                f" be written, and the disk has {bytes_text(free)} free; give a folder with more room, or null"
            )
        if not self._about.exists():
            self._make_folder()
        log.warning(
            "data.cache: keeps about %s of activations in %s, %s of them still to be written (%s free)",
            *(size, self.folder, bytes_text(needed), bytes_text(free)),
        )

    def _make_folder(self) -> None:
        about = {"what": "activations that sae-sweep keeps for later sweeps; can be deleted", **self._entries}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json_atomic(self._about, about)
        except OSError as error:
            raise ConfigError(
                f"data.cache={self.folder.parent} cannot be written to ({error.strerror}); give another folder, or null"
            ) from error

    def _write_block(self, rows: BlockRows, made: dict[str, Tensor], stamp: str) -> None:
        """Write what was gathered. A folder that takes no more is said once, and the stream goes on without it."""
        try:
            self._write(rows.index, TOKENS, TOKENS, rows.tokens_B, stamp)
            for hook, x_BD in made.items():
                self._write(rows.index, hook, ACTIVATIONS, x_BD.cpu(), stamp)
        except (OSError, SafetensorError) as error:
            self._writing = False
            reason = one_line(error)
            log.warning("data.cache: %s takes no more, and nothing further is kept (%s)", self.folder, reason)

    def _write(self, index: int, name: str, kind: str, tensor: Tensor, stamp: str) -> None:
        tensor = tensor.contiguous()
        about = json.dumps({"block": index, "of": name, "rows": stamp, "crc32": _checksum(tensor)})
        with replacing(block_file(self.folder, index, name)) as temporary:
            save_file({kind: tensor}, temporary, {ABOUT: about})  # of several entries the order would vary

    def _say_other(self, file: Path) -> None:
        if not self._said_other:
            self._said_other = True
            log.warning(
                "data.cache: %s was made from other rows or weights than there are now; such files are written again",
                file,
            )


def _say_damaged(file: Path, why: str) -> None:
    log.warning("data.cache: %s is damaged (%s); it is harvested again", file, why)


def _checksum(tensor: Tensor) -> str:
    return f"{zlib.crc32(tensor.view(torch.uint8).numpy().data):08x}"


def _device_name(device: torch.device) -> str:
    """cpu, or the kind of GPU, as part of a folder's name."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
