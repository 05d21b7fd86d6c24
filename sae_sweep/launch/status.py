"""`sae-sweep status DIR`: how far a sweep is, from its folder alone, whoever trains in it."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import time
from typing import Any

from sae_sweep.config.values import count, counted, duration, shown
from sae_sweep.folder.checkpoints import Checkpoint, StateFolder
from sae_sweep.folder.lock import Holder, living_holder
from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.host.terminal import tell
from sae_sweep.launch.clusters import Verdict
from sae_sweep.launch.standing import ENDED, ending, states, verdicts, words
from sae_sweep.launch.tables import print_table
from sae_sweep.launch.tasks import Task, read_tasks
from sae_sweep.plan.axes import axes

HEADER = ("state", "steps", "tokens", "checkpoint", "reason")
"""After the member and what it has on each axis of the sweep."""


@dataclass(frozen=True)
class MemberStatus:
    """How far one member is."""

    member: str
    axes: Mapping[str, str]
    """What it has of what varies in the sweep, by key."""
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
class TaskStatus:
    """How far a group is that was given to a worker elsewhere."""

    task: str
    job: str | None
    """The cluster's id of its job."""
    words: str
    """What people call it."""
    state: str
    """What the cluster says of its job, in the cluster's words, and of others `working` or `gone`."""
    reason: str | None
    """Why it waits, in the cluster's words."""
    holder: Holder | None
    """Who works on it; None where nobody does, yet or any more."""
    doing: str | None
    eta: float | None
    members: tuple[str, ...]
    log: str | None


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is."""

    folder: str
    holder: Holder | None
    """Who trains in it, or waits for the workers of its tasks; None where nobody does."""
    doing: str | None
    """Where in the stream the group in training is, or that it is judged."""
    eta: float | None
    """Seconds of training that the group in training has left."""
    checkpoint_age: float | None
    """Seconds since the newest checkpoint of an unfinished member."""
    axes: Mapping[str, str]
    """The titles of what varies, by key."""
    members: tuple[MemberStatus, ...]
    tasks: tuple[TaskStatus, ...]
    """Of a sweep that was given to a cluster."""


def read_status(root: Path) -> SweepStatus:
    """Read a sweep's folder. Raises ConfigError where its sweep.json cannot be read."""
    folder, state, now = SweepFolder(root), StateFolder(root), time()
    homes, holder = state.homes(), living_holder(root)
    here = folder.read()["members"]
    tasks = read_tasks(root)
    said = verdicts(tasks)
    own = _Beat.of(state, holder, now)
    beats = {task.name: _Beat.of(StateFolder(root, task.name), task.holder, now) for task in tasks}
    by_label = {label: task for task in tasks for label in states(task)}
    varying = axes({label: entry["config"] for label, entry in here.items()})
    members = []
    for label, entry in here.items():
        task = by_label.get(label)
        beat = beats[task.name] if task else own
        member = _member(label, entry, homes.get(entry["identity"]), beat, now)
        member = replace(member, axes={axis.key: axis.values[label] for axis in varying})
        members.append(_in_hand(member, task, said.get(task.name)) if task else member)
    ages = [member.checkpoint_age for member in members if member.checkpoint_age is not None]
    told = tuple(_task(task, beats[task.name], said.get(task.name)) for task in tasks)
    titles = {axis.key: axis.title for axis in varying}
    return SweepStatus(str(root), holder, own.doing, own.eta, min(ages, default=None), titles, tuple(members), told)


@dataclass(frozen=True)
class _Beat:
    """What who trains has last said of how far it is; nothing where nobody trains."""

    holder: Holder | None
    doing: str | None
    eta: float | None
    steps: Mapping[str, int]

    @staticmethod
    def of(state: StateFolder, holder: Holder | None, now: float) -> "_Beat":
        said = state.progress() if holder is not None else {}
        eta = said.get("eta")
        left = None if eta is None else max(0.0, eta - (now - said["time"]))
        return _Beat(holder, said.get("doing"), left, said.get("steps", {}))


def _in_hand(member: MemberStatus, task: Task, verdict: Verdict | None) -> MemberStatus:
    """The member's state with what the cluster says of its job."""
    if verdict is None or verdict.stage == "untold" or member.state in ENDED:
        return member
    if verdict.over:
        state, reason = ending(task, verdict)
        return replace(member, state=state, reason=reason)
    if verdict.stage == "runs" and member.state == "running":
        return member
    why = f" ({verdict.reason})" if verdict.reason else ""
    state = "planned" if member.checkpoint_step is None else "interrupted"
    return replace(member, state=state, reason=f"{words(task)} is {verdict.state}{why}")


def _task(task: Task, beat: _Beat, verdict: Verdict | None) -> TaskStatus:
    if verdict is None or (verdict.stage == "untold" and beat.holder):
        verdict = Verdict("runs", "working") if beat.holder else Verdict("over", "gone")
    return TaskStatus(
        task=task.name,
        job=task.job,
        words=words(task),
        state=verdict.state,
        reason=verdict.reason,
        holder=beat.holder,
        doing=beat.doing,
        eta=beat.eta,
        members=tuple(states(task)),
        log=task.log,
    )


def print_status(root: Path, *, as_json: bool) -> None:
    """Print it to standard output: a line and a table, or one JSON object."""
    status = read_status(root)
    if as_json:
        print(json.dumps(asdict(status), indent=2))
        return
    tell(_headline(status))
    for task in status.tasks:
        tell(_task_line(task))
    header = ("member", *status.axes.values(), *HEADER)
    rows = [_row(member) for member in status.members]
    print_table(counted(len(rows), "member"), header, rows, sys.stdout, spare=len(status.axes))


def _member(
    label: str,
    entry: Mapping[str, Any],
    checkpoint: Checkpoint | None,
    beat: _Beat,
    now: float,
) -> MemberStatus:
    training, state, reason = entry["config"]["training"], entry["state"], entry["reason"]
    batch, asked = training["batch_size"], int(training["tokens"])
    total = max(1, asked // batch)
    saved = next((m for m in checkpoint.members if m.identity == entry["identity"]), None) if checkpoint else None
    step = total if state == "finished" else max(beat.steps.get(label, 0), saved.step if saved else 0)
    if state == "running" and saved is not None and saved.failed is not None:
        state, reason = "failed", saved.failed
    if state == "running" and beat.holder is None:
        state, reason = "interrupted", "its process is gone"
    unfinished = state != "finished" and saved is not None and checkpoint is not None
    return MemberStatus(
        member=label,
        axes={},
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
    what = "in training" if not status.tasks else "waited for"
    nobody = "nobody trains here" if not status.tasks else f"{counted(len(status.tasks), 'group')} given to workers"
    parts = [f"{status.folder}: " + (f"{what} ({status.holder})" if status.holder else nobody)]
    if status.doing:
        parts.append(status.doing)
    if status.eta is not None:
        parts.append(f"ETA {duration(status.eta)}")
    if status.checkpoint_age is not None:
        parts.append(f"last checkpoint {duration(status.checkpoint_age)} ago")
    return ", ".join(parts)


def _task_line(task: TaskStatus) -> str:
    parts = [f"{task.words}: {task.state}" + (f" ({task.reason})" if task.reason else "")]
    if task.holder:
        parts.append(str(task.holder))
    if task.doing:
        parts.append(task.doing)
    if task.eta is not None:
        parts.append(f"ETA {duration(task.eta)}")
    return ", ".join([*parts, counted(len(task.members), "member")])


def _row(member: MemberStatus) -> tuple[str, ...]:
    return (
        member.member,
        *member.axes.values(),
        member.state,
        f"{shown(member.step)}/{member.steps} {member.step / member.steps:.0%}",
        f"{count(member.tokens)}/{count(member.tokens_asked)}",
        "-" if member.checkpoint_step is None else f"step {member.checkpoint_step}",
        member.reason or "",
    )
