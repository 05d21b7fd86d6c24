"""`sae-sweep status DIR`: how far a sweep is, from its folder alone, whoever trains in it."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Any

from sae_sweep.checkpoints import Checkpoint, StateFolder
from sae_sweep.config import shown
from sae_sweep.launch.lock import Holder, read_holder
from sae_sweep.launch.tables import print_table
from sae_sweep.reporting.columns import count
from sae_sweep.reporting.progress import duration
from sae_sweep.runs import SweepFolder

HEADER = ("member", "state", "steps", "tokens", "checkpoint", "reason")


@dataclass(frozen=True)
class MemberStatus:
    """How far one member is."""

    member: str
    state: str
    """planned, running, interrupted (nobody trains it any more, and it is not finished), finished or failed."""
    step: int
    steps: int
    tokens: int
    tokens_asked: int
    checkpoint_step: int | None
    """The step it would go on from."""
    checkpoint_age: float | None
    """Seconds."""
    reason: str | None
    """Why it failed, or was interrupted."""


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is."""

    folder: str
    holder: Holder | None
    """Who trains in it; None where nobody does."""
    doing: str | None
    """Where in the stream the group in training is, or that it is judged."""
    eta: float | None
    """Seconds of training that the group in training has left."""
    checkpoint_age: float | None
    """Seconds since the newest checkpoint of an unfinished member."""
    members: tuple[MemberStatus, ...]


def read_status(root: Path) -> SweepStatus:
    """Read a sweep's folder. Raises ConfigError where its sweep.json cannot be read."""
    folder, state, now = SweepFolder(root), StateFolder(root), time()
    homes, beat, holder = state.homes(), state.progress(), read_holder(root)
    if holder is not None and holder.here and not holder.alive:
        holder = None
    steps = beat.get("steps", {}) if holder else {}
    members = tuple(
        _member(label, entry, homes.get(entry["identity"]), steps, holder, now)
        for label, entry in folder.read()["members"].items()
    )
    ages = [member.checkpoint_age for member in members if member.checkpoint_age is not None]
    eta = beat.get("eta") if holder else None
    left = None if eta is None else max(0.0, eta - (now - beat["time"]))
    return SweepStatus(str(root), holder, beat.get("doing") if holder else None, left, min(ages, default=None), members)


def print_status(root: Path, *, as_json: bool) -> None:
    """Print it to standard output: a line and a table, or one JSON object."""
    status = read_status(root)
    if as_json:
        print(json.dumps(asdict(status), indent=2))
        return
    print(_headline(status))
    print_table(f"{len(status.members)} members", HEADER, [_row(member) for member in status.members], sys.stdout)


def _member(
    label: str,
    entry: Mapping[str, Any],
    checkpoint: Checkpoint | None,
    steps: Mapping[str, int],
    holder: Holder | None,
    now: float,
) -> MemberStatus:
    training, state, reason = entry["config"]["training"], entry["state"], entry["reason"]
    batch, asked = training["batch_size"], int(training["tokens"])
    total = max(1, asked // batch)
    saved = next((m for m in checkpoint.members if m.identity == entry["identity"]), None) if checkpoint else None
    step = total if state == "finished" else max(steps.get(label, 0), saved.step if saved else 0)
    if state == "running" and saved is not None and saved.failed is not None:
        state, reason = "failed", saved.failed
    if state == "running" and holder is None:
        state, reason = "interrupted", "its process is gone"
    unfinished = state != "finished" and saved is not None and checkpoint is not None
    return MemberStatus(
        member=label,
        state=state,
        step=step,
        steps=total,
        tokens=step * batch,
        tokens_asked=total * batch,
        checkpoint_step=saved.step if saved is not None and unfinished else None,
        checkpoint_age=now - checkpoint.time if checkpoint is not None and unfinished else None,
        reason=reason,
    )


def _headline(status: SweepStatus) -> str:
    parts = [f"{status.folder}: " + (f"in training ({status.holder})" if status.holder else "nobody trains here")]
    if status.doing:
        parts.append(status.doing)
    if status.eta is not None:
        parts.append(f"ETA {duration(status.eta)}")
    if status.checkpoint_age is not None:
        parts.append(f"last checkpoint {duration(status.checkpoint_age)} ago")
    return ", ".join(parts)


def _row(member: MemberStatus) -> tuple[str, ...]:
    return (
        member.member,
        member.state,
        f"{shown(member.step)}/{member.steps} {member.step / member.steps:.0%}",
        f"{count(member.tokens)}/{count(member.tokens_asked)}",
        "-" if member.checkpoint_step is None else f"step {member.checkpoint_step}",
        member.reason or "",
    )
