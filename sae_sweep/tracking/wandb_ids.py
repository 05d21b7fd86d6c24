"""Where wandb's files of a sweep are, and the ids of its runs, which are the same from one command to the next."""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path


def wandb_folder(sweep_folder: Path) -> Path:
    """The folder in which wandb makes its own, `wandb/`: WANDB_DIR, or the sweep's."""
    return Path(os.environ.get("WANDB_DIR") or sweep_folder)


def run_id(sweep_folder: Path, sweep_name: str, identity: str) -> str:
    """Of a run of this sweep: 16 hex digits. The salt is the folder's own: wandb drops the steps of a run that is
    trained anew under an old id."""
    salt = sweep_folder / "wandb" / "salt"
    if not salt.exists():
        salt.parent.mkdir(parents=True, exist_ok=True)
        value = secrets.token_hex(4)
        mine = salt.with_name(f"salt.{value}")
        mine.write_text(value, encoding="utf-8")
        # A link appears whole, and only once: groups that begin together agree.
        with suppress(FileExistsError):
            salt.hardlink_to(mine)
        mine.unlink()
    text = f"{sweep_name}/{identity}/{salt.read_text(encoding='utf-8')}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
