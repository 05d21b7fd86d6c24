"""Runs a sweep in this process: plan, open the folder, train what is missing, report."""

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError, ProcessLost
from sae_sweep.folder.checkpoints import Checkpoint, StateFolder
from sae_sweep.folder.lock import held
from sae_sweep.folder.storage import of_storage, storage_errors
from sae_sweep.folder.sweep import MemberResult, State, SweepFolder, one_at_a_time, sweep_root
from sae_sweep.host.signals import Interrupted, Stop, stopping
from sae_sweep.launch.dry_run import print_plan
from sae_sweep.launch.tables import print_table
from sae_sweep.launch.tasks import ENDED, clear_over, refuse_elsewhere
from sae_sweep.plan.members import Group, Member, Plan, member_identity, plan_sweep
from sae_sweep.plan.milestones import passed
from sae_sweep.plan.placement import Pass, Wave

if TYPE_CHECKING:
    from sae_sweep.training.run.loop import GroupRun


@dataclass(frozen=True)
class Outcome:
    """Where one member stands after the command."""

    label: str
    identity: str
    folder: Path
    state: State
    """finished or failed; planned after a dry run."""
    metrics: dict[str, Any] | None
    """The final metrics of a finished member."""
    reason: str | None
    """Why it failed, in one line."""


def run_sweep(configs: Sequence[MemberConfig]) -> list[Outcome]:
    """Train what is missing of the sweep and return one outcome per config, in their order.

    Everything is checked before anything is written: raises ConfigError for a sweep that cannot be, and where another
    process trains in its folder. A member that fails does not stop the others. Told to stop by a signal it raises
    Interrupted, and where the disk takes no more StorageError; both times the same command goes on from there.
    """
    plan = plan_sweep(configs)
    folder = SweepFolder(sweep_root(configs[0]))
    plan = folder.named(plan)
    _tell_passed(plan, folder)
    if configs[0].dry_run:
        print_plan(plan, folder.root, folder.finished(plan))
        return in_order(configs, [outcome(member, folder, "planned", None) for member in plan.members])
    folder.check_place()
    with held(folder.root), stopping() as stop:
        plan = folder.named(plan)  # another process may have written there since
        others = clear_over(folder.root)
        finished = folder.finished(plan)
        labels = [m.label for m in plan.members if m.identity in others and m.identity not in finished]
        if labels:
            raise refuse_elsewhere(labels, next(others[m.identity] for m in plan.members if m.label == labels[0]))
        with storage_errors():
            reasons = train(plan, finished, folder, stop)
            write_reports(folder, configs[0], trained=len(finished) < len(plan.members))
    outcomes = [
        outcome(member, folder, "failed" if member.label in reasons else "finished", reasons.get(member.label))
        for member in plan.members
    ]
    print_failures(outcomes)
    return in_order(configs, outcomes)


def _tell_passed(plan: Plan, folder: SweepFolder) -> None:
    """Say which finished members lack milestones that are asked for now."""
    finished = folder.finished(plan)
    milestones = [(member.label, member.schedule.milestones) for member in plan.members if member.identity in finished]
    if said := passed(milestones, folder.has_milestone):
        print(f"sae-sweep: {said}", file=sys.stderr)


def train(plan: Plan, finished: set[str], folder: SweepFolder, stop: Stop) -> dict[str, str]:
    """Train every group that is not finished; the failed members' reasons by label."""
    reasons: dict[str, str] = {}
    begun = False
    state = StateFolder(folder.root, folder.task)
    state.prune(finished)
    homes = state.homes()
    for path in state.unreadable():
        print(f"sae-sweep: no checkpoint in {path} can be read; its members begin anew", file=sys.stderr)
    done = set(finished)
    for group, opened in _opened(_parted(plan.without(finished), homes)):
        labels = [member.label for member in group.members]
        if isinstance(opened, ConfigError):
            if not begun:
                raise opened  # nothing has been written
            results, ended = dict.fromkeys(labels, MemberResult(None, str(opened))), False
        else:
            if not begun:
                folder.begin(plan, homes.keys())
                begun = True
            folder.mark(labels, "running", None)
            results, ended = _run(opened, group, folder, stop)
            del opened  # before the next one needs the room
        failed = {label: result.reason for label, result in results.items() if result.reason is not None}
        folder.mark(results.keys() - failed.keys(), "finished", None)  # at once: each call rewrites all of sweep.json
        for label, reason in failed.items():
            folder.mark([label], "failed", reason)
        if ended:
            done |= {member.identity for member in group.members}
            state.prune(done)
        reasons |= failed
        stop.poll()  # a signal that came while results were written
    if not begun:
        folder.begin(plan)
    return reasons


def _opened(groups: Sequence[Group]) -> "Iterator[tuple[Group, GroupRun | ConfigError]]":
    """Every pass of every group, opened when the one before is done with; or why it cannot be."""
    for group in groups:
        from sae_sweep.training.run.opening import open_group, passes  # brings in torch: planning must not

        try:
            planned = passes(group)
        except ConfigError as error:
            yield group, error
            continue
        for one in planned:
            yield one.group, _tried(open_group, one)


def _tried(open_group: "Callable[[Group, Sequence[Wave]], GroupRun]", planned: Pass) -> "GroupRun | ConfigError":
    from sae_sweep.host.memory import OUT_OF_MEMORY, is_out_of_memory  # brings in torch

    try:
        return open_group(planned.group, planned.waves)
    except ConfigError as error:
        return error
    except OUT_OF_MEMORY as error:
        if not is_out_of_memory(error):
            raise
        widest = max(planned.group.members, key=lambda member: member.width)
        return ConfigError(
            f"launcher.memory_gb: out of memory before the first step, with {widest.label} the largest of"
            f" {len(planned.group.members)} members; lower sae.width or data.block_rows, or state launcher.memory_gb"
        )


def _parted(plan: Plan, homes: Mapping[str, Checkpoint]) -> list[Group]:
    """The groups, each in parts that go on from one checkpoint, or begin, together.

    Members go on in the order they were saved in: another order would sum in another order.
    """
    parts: list[Group] = []
    for group in plan.groups:
        by_home: dict[Path | None, list[str]] = {}
        for member in group.members:
            home = homes.get(member.identity)
            by_home.setdefault(home.folder if home else None, []).append(member.identity)
        for identities in by_home.values():
            home = homes.get(identities[0])
            order = [member.identity for member in home.members] if home else identities
            parts += plan.only([identity for identity in order if identity in identities]).groups
    return parts


def _run(run: "GroupRun", group: Group, folder: SweepFolder, stop: Stop) -> tuple[dict[str, MemberResult], bool]:
    """The members' results, and whether they are final: a group that broke goes on from its checkpoint."""
    labels = [member.label for member in group.members]
    try:
        return run.run(folder, stop), True
    except Interrupted as interrupted:
        with suppress(OSError):  # a full disk must not hide why this ends
            folder.mark(labels, "interrupted", interrupted.name)
        raise
    except ConfigError as error:
        return dict.fromkeys(labels, MemberResult(None, str(error))), False
    except ProcessLost:
        raise
    except Exception as error:  # of whatever kind: a bug in one group must not lose the others
        if of_storage(error):
            raise
        traceback.print_exc()  # the other groups go on, so the traceback would be lost
        return dict.fromkeys(labels, MemberResult(None, _one_line(error))), False


def write_reports(folder: SweepFolder, config: MemberConfig, *, trained: bool) -> None:
    """Write pareto.json and report.html from what is finished; wandb is told by who trained the last member."""
    from sae_sweep.reporting.report import write_report  # brings in plotly: planning must not
    from sae_sweep.tracking.wandb_runs import log_summary

    with one_at_a_time(folder.root):  # the last of several workers then has what the others finished
        cells = write_report(folder.root)
        done = all(entry["state"] in ENDED for entry in folder.read()["members"].values())
    if trained and (done or folder.task is None):
        log_summary(folder.root, config.name, config.tracking, cells)


def outcome(member: Member, folder: SweepFolder, state: State, reason: str | None) -> Outcome:
    """Where a member stands."""
    metrics = folder.read_metrics(member.label) if state == "finished" else None
    return Outcome(member.label, member.identity, folder.member_folder(member.label), state, metrics, reason)


def in_order(configs: Sequence[MemberConfig], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome per config."""
    by_identity = {outcome.identity: outcome for outcome in outcomes}
    return [by_identity[member_identity(config)] for config in configs]


def print_failures(outcomes: Sequence[Outcome]) -> None:
    """Say to standard error who failed, and why."""
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failed:
        rows = [(outcome.label, outcome.reason or "") for outcome in failed]
        print_table(f"{len(failed)} of {len(outcomes)} members failed", ("member", "reason"), rows, sys.stderr)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
