"""Members' tensors on their way to a checkpoint and back.

What a member's run depends on beside them is in `checkpoints.SavedMember`: its step (schedules are functions of it),
its place in the stream, its route. There is no random state: every generator is seeded by the member's seed and its
step, every permutation by data.seed and a position.

A checkpoint holds a member as it is, NaN and all, since where a diverging member is noticed must not depend on where
a run was interrupted. Beside such a one lies its last good state: that of the last checkpoint at which its parameters
were finite.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from errno import EIO
from functools import partial
from pathlib import Path
from time import time

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sae_sweep.folder.checkpoints import (
    Checkpoint,
    Company,
    Damaged,
    SavedMember,
    checksum,
    read_checkpoint,
    write_state,
)
from sae_sweep.folder.storage import number_of
from sae_sweep.training.devices.ranks import ALONE, Ranks
from sae_sweep.training.step.trainer import BankTrainer

Located = dict[str, tuple[BankTrainer, int]]
"""Members by identity: the trainer, and the index in it."""
DTYPES = {"F64": "torch.float64", "F32": "torch.float32", "BF16": "torch.bfloat16", "I64": "torch.int64"}


@dataclass(frozen=True)
class Saving:
    """One member on its way to a checkpoint."""

    saved: SavedMember
    """`good_step` is that of its last good state before this one."""
    trainer: BankTrainer
    index: int


def save(
    company: Company,
    block: int,
    stamp: str,
    members: Sequence[Saving],
    before: Path | None,
    order: Sequence[str] = (),
    ranks: Ranks = ALONE,
) -> Checkpoint:
    """Write a checkpoint: each rank its `members`, into one folder; by identity in this `order`, or else in theirs;
    `before` is the folder of the one before. Raises OSError, on all ranks; what was there stays."""
    with ExitStack() as writing:
        folder = ranks.shared(lambda: writing.enter_context(company.writing()))
        own = ranks.collected(lambda: [_save_member(folder, member, before) for member in members])
        written = {member.identity: member for some in own for member in some}
        checkpoint = Checkpoint(folder, block, stamp, time(), tuple(written[identity] for identity in order or written))
        if ranks.first:
            write_state(checkpoint)
    return replace(checkpoint, folder=ranks.shared(lambda: company.folders()[0]))


def newest_sound(
    company: Company, trainers: Located, say: Callable[[str], None], ranks: Ranks = ALONE
) -> Checkpoint | None:
    """The newest checkpoint that can be used by these members, by identity; `say` is told of each that cannot.

    `trainers` are this rank's; each file is read by one rank.
    """
    for folder in ranks.shared(company.folders):
        try:
            checkpoint = ranks.shared(partial(read_checkpoint, folder))
            ranks.collected(partial(_check, checkpoint, trainers, ranks))
            return checkpoint
        except Damaged as error:
            say(f"checkpoint {folder} is damaged ({error}); going back to the one before")
    return None


def _check(checkpoint: Checkpoint, trainers: Located, ranks: Ranks) -> None:
    """Raises Damaged where a file is not what was written, or not what its trainer has."""
    checkpoint.verify(checkpoint.members[ranks.rank :: ranks.size])
    for member in checkpoint.members:
        if member.identity in trainers:
            _check_tensors(checkpoint.folder / member.file, member.label, *trainers[member.identity])


def load(checkpoint: Checkpoint, member: SavedMember, trainer: BankTrainer, index: int) -> None:
    """Set a member's tensors to those of a sound checkpoint."""
    trainer.load(index, load_file(checkpoint.folder / member.file))


def _save_member(folder: Path, member: Saving, before: Path | None) -> SavedMember:
    saved = member.saved
    tensors = {name: t.detach().cpu().contiguous() for name, t in member.trainer.state(member.index).items()}
    finite = member.trainer.finite(member.index)
    if not finite and saved.good_step is not None and before is not None:
        _keep_good(before, folder, saved)
    try:
        save_file(tensors, folder / saved.file)
    except SafetensorError as error:
        number = number_of(error) or EIO
        raise OSError(number, os.strerror(number), str(folder / saved.file)) from error
    return replace(saved, good_step=saved.step if finite else saved.good_step, crc32=checksum(folder / saved.file))


def _keep_good(before: Path, folder: Path, saved: SavedMember) -> None:
    """Take the last good state along: a link costs nothing, where the file system has them."""
    good = f"{saved.identity}.good.safetensors"
    source = before / good if (before / good).exists() else before / saved.file
    link_or_copy(source, folder / good)


def link_or_copy(source: Path, target: Path) -> None:
    """Another name for a file, or a copy of it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _check_tensors(file: Path, label: str, trainer: BankTrainer, index: int) -> None:
    """Raises Damaged where the tensors are not those that the trainer has."""
    expected = trainer.state(index)
    try:
        with safe_open(file, framework="pt") as opened:
            found = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
            if found.keys() != expected.keys():
                raise Damaged(f"{label}: its tensors have other names")
            for name, tensor in expected.items():
                shape, dtype = tuple(found[name].get_shape()), DTYPES.get(found[name].get_dtype())
                if (shape, dtype) != (tuple(tensor.shape), str(tensor.dtype)):
                    raise Damaged(f"{label}: {name} is {dtype} {shape}")
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{label}: {error}") from error


def place_good_state(checkpoint: Checkpoint, member: SavedMember, target: Path) -> bool:
    """Put a failed member's last good state where it stays; False where there is none."""
    if member.good_step is None:
        return False
    target.unlink(missing_ok=True)
    link_or_copy(checkpoint.folder / member.good, target)
    return True
