"""A whole sweep, wherever its groups are trained: plan, name, check, train what is missing, and say what came of it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sae_sweep.config.schema import LauncherConfig, MemberConfig
from sae_sweep.config.values import counted
from sae_sweep.folder.lock import held
from sae_sweep.folder.sweep import State, SweepFolder, one_at_a_time, sweep_root
from sae_sweep.host.signals import Stop, stopping
from sae_sweep.launch.dry_run import print_plan, time_here
from sae_sweep.launch.speed import measured_flops
from sae_sweep.launch.standing import clear_over
from sae_sweep.launch.tables import print_table, say
from sae_sweep.launch.tasks import Task
from sae_sweep.plan.groups import Plan, plan_sweep
from sae_sweep.plan.members import Member, member_identity
from sae_sweep.plan.milestones import passed
from sae_sweep.tracking.environment import with_environment


@dataclass(frozen=True)
class Outcome:
    """Where one member stands after the command."""

    label: str
    identity: str
    folder: Path
    state: State
    """finished or failed; planned after a dry run, or where a cluster still has it."""
    metrics: dict[str, Any] | None
    """The final metrics of a finished member."""
    reason: str | None
    """Why it failed, in one line."""


class Place(Protocol):
    """Where the groups of a sweep are trained."""

    def check(self, launcher: LauncherConfig) -> None:
        """Raises ConfigError for devices that there are not in this place."""
        ...

    def words(self, number: int) -> str | None:
        """Where the group of this number would be trained, for a dry run; None where that goes without saying."""
        ...

    def train(self, plan: Plan, folder: SweepFolder, others: dict[str, Task], stop: Stop) -> None:
        """Train what is missing, and write what became of it into the folder, whose lock is held. `others` are tasks
        that earlier commands gave to workers, by the identities of their members."""
        ...


def launch(configs: Sequence[MemberConfig], place: Place) -> list[Outcome]:
    """Train what is missing of the sweep and return one outcome per config, in their order.

    Everything is checked before anything is written: raises ConfigError for a sweep that cannot be, and where another
    process trains in its folder. A member that fails does not stop the others. Told to stop by a signal it raises
    Interrupted, and where the disk takes no more StorageError; both times the same command goes on from there.
    """
    configs = [with_environment(config) for config in configs]
    plan = plan_sweep(configs)
    place.check(configs[0].launcher)
    folder = SweepFolder(sweep_root(configs[0]))
    plan = folder.named(plan)
    folder.check_content(plan)
    folder.check_place()
    _tell_passed(plan, folder)
    if configs[0].dry_run:
        _print_dry(plan, folder, place)
        return _in_order(configs, [_outcome(member, folder, "planned", None) for member in plan.members])
    if sys.stderr.isatty():  # what comes next takes seconds to import
        say(f"{counted(len(plan.members), 'member')} in {folder.root}: loading what trains them")
    with held(folder.root), stopping() as stop:
        plan = folder.named(plan)  # another process may have written there since
        place.train(plan, folder, clear_over(folder.root), stop)
    outcomes = _outcomes(plan, folder)
    _print_failures(outcomes)
    return _in_order(configs, outcomes)


def write_reports(folder: SweepFolder) -> list[dict[str, Any]]:
    """Write pareto.json and report.html from what is finished; the cells."""
    from sae_sweep.reporting.report import write_report  # brings in plotly: planning must not

    with one_at_a_time(folder.root):  # the last of several workers then has what the others finished
        return write_report(folder.root)


def _tell_passed(plan: Plan, folder: SweepFolder) -> None:
    """Say which finished members lack milestones that are asked for now."""
    finished = folder.finished(plan)
    milestones = [(member.label, member.schedule.milestones) for member in plan.members if member.identity in finished]
    if said := passed(milestones, folder.has_milestone):
        say(said)


def _print_dry(plan: Plan, folder: SweepFolder, place: Place) -> None:
    finished = folder.finished(plan)
    here = place.words(0) is None
    print_plan(plan, folder.root, finished, here=here)
    left, config = plan.without(finished), plan.members[0].config
    if left.groups and config.launcher.device_flops is None and here:
        device_flops = measured_flops(config.model)
        if device_flops is not None:
            print(time_here(left, device_flops))
    for number, group in enumerate(left.groups):
        if where := place.words(number):
            print("\n" * (number == 0) + f"group {group.key}: {where}")


def _outcomes(plan: Plan, folder: SweepFolder) -> list[Outcome]:
    """Of every member of the plan, as the folder says."""
    here, done = folder.read()["members"], folder.finished(plan)
    outcomes = []
    for member in plan.members:
        state, reason = here[member.label]["state"], here[member.label]["reason"]
        if member.identity in done:
            outcomes.append(_outcome(member, folder, "finished", None))
        elif state in ("failed", "interrupted"):
            outcomes.append(_outcome(member, folder, "failed", reason))
        else:
            outcomes.append(_outcome(member, folder, "planned", None))
    return outcomes


def _outcome(member: Member, folder: SweepFolder, state: State, reason: str | None) -> Outcome:
    metrics = folder.read_metrics(member.label) if state == "finished" else None
    return Outcome(member.label, member.identity, folder.member_folder(member.label), state, metrics, reason)


def _in_order(configs: Sequence[MemberConfig], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome per config."""
    by_identity = {outcome.identity: outcome for outcome in outcomes}
    return [by_identity[member_identity(config)] for config in configs]


def _print_failures(outcomes: Sequence[Outcome]) -> None:
    """Say to standard error who failed, and why."""
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failed:
        rows = [(outcome.label, outcome.reason or "") for outcome in failed]
        print_table(f"{len(failed)} of {len(outcomes)} members failed", ("member", "reason"), rows, sys.stderr)
