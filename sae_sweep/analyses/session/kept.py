"""What an analysis has found so far, in tensors that outlive its process: one that is killed goes on where it was."""

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import monotonic

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sae_sweep.folder.files import replacing

SAVE_SECONDS = 15.0
"""At most so much work is lost."""


class Kept:
    """The tensors of one analysis by name, which it changes in place, and how far it has read.

    Whoever begins anew is given the tensors of the time before, so it must keep nothing of a pass elsewhere.
    """

    def __init__(self, file: Path | None = None, signature: str = "") -> None:
        """In a file, unless what that holds is of another signature; without one, as long as the process lasts."""
        self._file, self._signature, self._saved = file, signature, monotonic()
        self._made: TemporaryDirectory[str] | None = None
        self._tensors: dict[str, Tensor] = {}
        self.passes, self.batches = 0, 0
        """Passes that were read to their end, and batches of the next one."""
        if file is not None and file.is_file():
            self._read(file)

    def _read(self, file: Path) -> None:
        try:
            with safe_open(str(file), framework="pt") as opened:
                said = opened.metadata() or {}
                if said.get("signature") != self._signature:
                    return
                names = opened.keys()  # it is no mapping, and cannot be iterated itself
                self._tensors = {name: opened.get_tensor(name) for name in names}
                self.passes, self.batches = int(said["passes"]), int(said["batches"])
        except (SafetensorError, KeyError, ValueError, OSError):
            self._tensors, self.passes, self.batches = {}, 0, 0

    def zeros(
        self, name: str, *shape: int, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
    ) -> Tensor:
        """The tensor of that name, at first zeros."""
        made = self._tensors[name] if name in self._tensors else torch.zeros(shape, dtype=dtype)
        self._tensors[name] = made.to(device)
        return self._tensors[name]

    def put(self, name: str, tensor: Tensor) -> None:
        """Put another tensor in the place of one."""
        self._tensors[name] = tensor

    def once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """What is made between passes: not again by a process that goes on."""
        if name not in self._tensors:
            self._tensors[name] = make()
            self.save_now_and_then()
        return self._tensors[name]

    def __contains__(self, name: str) -> bool:
        """Whether there is one of that name, of this process or of one that it goes on from."""
        return name in self._tensors

    def folder(self) -> Path:
        """A folder for what is kept in files of its own: beside the file, or as long as the process lasts."""
        if self._file is not None:
            made = self._file.with_suffix("") / self._signature
            made.mkdir(parents=True, exist_ok=True)
            return made
        self._made = self._made or TemporaryDirectory()
        return Path(self._made.name)

    def save_now_and_then(self) -> None:
        """Write the file where enough time has passed. Only where all tensors are of the same batches."""
        if self._file is not None and monotonic() - self._saved >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the file, unless there is nothing to keep."""
        if self._file is None or not self._tensors:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        said = {"signature": self._signature, "passes": str(self.passes), "batches": str(self.batches)}
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self._tensors.items()}
        with replacing(self._file, durable=False) as temporary:
            save_file(tensors, temporary, metadata=said)
        self._saved = monotonic()

    def forget(self) -> None:
        """Remove the file and the folder: its command is done."""
        if self._file is not None:
            rmtree(self._file.with_suffix(""), ignore_errors=True)
            self._file.unlink(missing_ok=True)
