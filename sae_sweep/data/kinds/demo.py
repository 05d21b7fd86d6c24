"""The embedded corpus: the Python standard library's own source files, read from the interpreter that runs.

It needs no download and no file of ours, it is real text (half prose, half code), and every user already has it.
"""

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.origin import HELDOUT_KEYS

if TYPE_CHECKING:
    from sae_sweep.data.packing import PackedText, RowFormat, Tokenizer

MODEL = TOKENIZES = True
READS = ("packing", "attention")
HELDOUT = HELDOUT_KEYS
Split = Literal["train", "heldout"]

# Folders that are not the library's own writing (installed packages, build records), that distributions often leave
# out (tests), or that are almost only character tables (encodings).
_SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "encodings"}
)
_SKIPPED_PREFIXES = ("config-", "_sysconfigdata")  # written by the build, different on every machine

_HELDOUT_ONE_IN = 20


def check(config: DataConfig) -> None:
    """There is nothing to check: every interpreter has its library."""


def note(config: DataConfig) -> None:
    """It goes without saying."""


def open_rows(config: DataConfig, tokenizer: "Tokenizer | None", form: "RowFormat") -> "tuple[PackedText, PackedText]":
    from sae_sweep.data.packing import PackedText

    def open_one(split: Split) -> PackedText:
        return PackedText(partial(demo_documents, split), tokenizer, form, "data.kind=demo", kept=True)

    return open_one("train"), open_one("heldout")


def own_files() -> tuple[str, Path, list[str]]:
    """Whose text it is, in words, and the files that it is: what the corpus is known by."""
    return f"Python {platform.python_version()}", demo_root(), demo_files()


def _keeps(name: str) -> bool:
    return name not in _SKIPPED_FOLDERS and not name.startswith(_SKIPPED_PREFIXES)


def is_heldout(relative_path: str) -> bool:
    """Whether the file at this posix path, relative to the library, is held out.

    Decided by the path alone, so that a file stays on its side whatever the Python version, the machine or its edits.
    """
    return int(hashlib.sha256(relative_path.encode()).hexdigest(), 16) % _HELDOUT_ONE_IN == 0


def demo_root() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def demo_files(split: Split | None = None) -> list[str]:
    """Posix paths of the corpus, relative to `demo_root()` and sorted; `None` means both splits."""
    root = demo_root()
    paths: list[str] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = filter(_keeps, subfolders)  # pruned here: site-packages can hold more files than all the rest
        paths += [(Path(folder) / name).relative_to(root).as_posix() for name in names if _keeps(name)]
    sources = sorted(path for path in paths if path.endswith(".py"))
    if not sources:
        raise FileNotFoundError(f"the demo corpus needs the standard library's .py files, and {root} has none")
    if split is None:
        return sources
    return [path for path in sources if is_heldout(path) == (split == "heldout")]


def demo_documents(split: Split) -> Iterator[str]:
    """The text of each file of a split, one document per file, in the order of `demo_files`."""
    root = demo_root()
    for path in demo_files(split):
        text = (root / path).read_text(encoding="utf-8", errors="replace")
        if text:  # an empty __init__.py is no document
            yield text
