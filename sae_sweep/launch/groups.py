"""Trains the groups of a plan in this process, one after the other, into the folder of their sweep.

What can be told before anything is loaded is told of all groups first, by a ConfigError. What shows only when a group
is opened (its model, its data) fails the members of that group, and the others go on; where none could be opened it is
the command that cannot be, and nothing has been written.
"""

import traceback
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sae_sweep.errors import ConfigError, ProcessLost, one_line
from sae_sweep.folder.checkpoints import Checkpoint, StateFolder
from sae_sweep.folder.names import REPORT
from sae_sweep.folder.storage import of_storage, storage_errors
from sae_sweep.folder.sweep import MemberResult, SweepFolder
from sae_sweep.host.signals import Interrupted, Stop
from sae_sweep.launch.sweep import write_reports
from sae_sweep.launch.tables import say
from sae_sweep.plan.groups import Group, Plan
from sae_sweep.plan.placement import Pass

if TYPE_CHECKING:
    from sae_sweep.tracking.progress import Progress
    from sae_sweep.tracking.sweep_run import SweepRun
    from sae_sweep.training.run.loop import GroupRun


def train_missing(plan: Plan, folder: SweepFolder, stop: Stop) -> None:
    """Train every member that is not finished, write what became of each into the folder, and then the reports.

    Raises ConfigError where the members cannot be trained here, Interrupted where the process is told to stop, and
    StorageError where the disk takes no more.
    """
    finished, sweep = folder.finished(plan), _sweep_run(plan, folder)
    with storage_errors(), closing(sweep):
        _train(plan, finished, folder, stop, sweep)
        cells = write_reports(folder)
        if len(finished) < len(plan.members):
            from sae_sweep.reporting.summary import frontier_tables

            sweep.end(frontier_tables(cells), folder.root / REPORT)
            _make_workspace(plan, folder, str(cells[0]["fidelity"]) if cells else "ce_recovered")


def _sweep_run(plan: Plan, folder: SweepFolder) -> "SweepRun":
    """The run that tells of all members."""
    from sae_sweep.reporting.summary import latest_tables
    from sae_sweep.tracking.described import sweep_run
    from sae_sweep.tracking.sweep_run import SweepRun

    config = plan.members[0].config
    run = sweep_run(config.name, folder.task, plan.members, config.tracking)
    return SweepRun(folder.root, run, config.tracking, partial(latest_tables, folder.root))


def _make_workspace(plan: Plan, folder: SweepFolder, fidelity: str) -> None:
    """Make the workspace that shows the sweep, where it is asked for; a server's troubles are told, and no more."""
    config = plan.members[0].config
    if config.tracking.workspace and config.tracking.mode != "none":
        from sae_sweep.tracking.dashboard import make_dashboard

        try:
            make_dashboard(folder.root, config.tracking, fidelity)
        except ConfigError as error:
            say(str(error))


def _train(plan: Plan, finished: set[str], folder: SweepFolder, stop: Stop, sweep: "SweepRun") -> None:
    state, done = StateFolder(folder.root, folder.task), set(finished)
    state.prune(done)
    homes = state.homes()
    for path in state.unreadable():
        say(f"no checkpoint in {path} can be read; its members begin anew")
    left = _parted(plan.without(finished), homes)
    if not left:
        folder.begin(plan)
        return
    from sae_sweep.tracking.progress import Progress  # brings in rich

    unopened: list[tuple[Group, ConfigError]] = []
    begun = False
    with Progress(plan.members[0].config.name) as progress:
        for one in _passes(left, progress):
            try:
                opened = _opened(one, progress)
            except ConfigError as error:
                unopened.append((one.group, error))
                progress.end()
                continue
            if not begun:
                folder.begin(plan, homes.keys())
                sweep.begin()
                begun = True
            _fail(unopened, folder)
            if _run(opened, one.group, folder, stop, sweep):
                done |= {member.identity for member in one.group.members}
                state.prune(done)
            progress.end()
            del opened  # before the next one needs the room
            stop.poll()  # a signal that came while results were written
    if not begun:
        raise unopened[0][1]
    _fail(unopened, folder)


def _fail(unopened: list[tuple[Group, ConfigError]], folder: SweepFolder) -> None:
    """Say and write why the members of groups could not be trained."""
    while unopened:
        group, error = unopened.pop()
        say(f"group {group.key} cannot be trained: {error}")
        folder.mark(_labels(group), "failed", str(error))


def _passes(groups: Sequence[Group], progress: "Progress") -> list[Pass]:
    """The passes of all groups on this machine. Raises ConfigError."""
    progress.stage("loading torch")
    from sae_sweep.tracking.workload import workload
    from sae_sweep.training.run.opening import passes  # brings in torch: planning must not

    planned = [one for group in groups for one in passes(group)]
    progress.expect([workload(one) for one in planned])
    return planned


def _opened(planned: Pass, progress: "Progress") -> "GroupRun":
    from sae_sweep.host.memory import OUT_OF_MEMORY, is_out_of_memory  # brings in torch
    from sae_sweep.training.run.opening import open_group

    try:
        return open_group(planned.group, planned.waves, progress)
    except OUT_OF_MEMORY as error:
        if not is_out_of_memory(error):
            raise
        widest = max(planned.group.members, key=lambda member: member.width)
        raise ConfigError(
            f"launcher.memory_gb: out of memory before the first step, with {widest.label} the largest of"
            f" {len(planned.group.members)} members; lower sae.width or data.block_rows, or state launcher.memory_gb"
        ) from None


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


def _run(run: "GroupRun", group: Group, folder: SweepFolder, stop: Stop, sweep: "SweepRun") -> bool:
    """Train a group and write its members' states. Whether they are final: a group that broke goes on from its
    checkpoint."""
    labels = _labels(group)
    folder.mark(labels, "running", None)
    results, ended = _results(run, labels, folder, stop, sweep)
    failed = {label: result.reason for label, result in results.items() if result.reason is not None}
    folder.mark(results.keys() - failed.keys(), "finished", None)  # at once: each call rewrites all of sweep.json
    for label, reason in failed.items():
        folder.mark([label], "failed", reason)
    return ended


def _results(
    run: "GroupRun", labels: Sequence[str], folder: SweepFolder, stop: Stop, sweep: "SweepRun"
) -> tuple[dict[str, MemberResult], bool]:
    try:
        return run.run(folder, stop, sweep), True
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
        reason = f"{type(error).__name__}: {one_line(error)}"
        return dict.fromkeys(labels, MemberResult(None, reason)), False


def _labels(group: Group) -> list[str]:
    return [member.label for member in group.members]
