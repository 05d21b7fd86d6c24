"""The sweep folder: one folder per member, and sweep.json with everyone's state.

    outputs/<name>/
      sweep.json          what was asked, the plan, each member's state
      <member>/           config.yaml, weights, metrics.json, ...
        milestones/<tokens>/  the same of the member as it was after so many training tokens, but for curves
      .state/             while members are unfinished: how to go on (`checkpoints.py`), and who does (`lock.py`)
        tasks/<task>/     a group given to a worker elsewhere (`launch/tasks.py`); in states.json its members' states

A task is the only writer of its states.json. sweep.json is brought up to date with all of them whenever anybody writes
it, by one process at a time where the file system has locks.

No torch here.
"""

import fcntl
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from sae_sweep.config.reading import config_entries
from sae_sweep.config.schema import MemberConfig
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.folder.files import clear_leftovers, write_json_atomic, write_text_atomic
from sae_sweep.folder.record import check_content, member_entry, new_record, plan_entries, read_record, read_states
from sae_sweep.folder.storage import is_whole_safetensors
from sae_sweep.host.json_files import read_object
from sae_sweep.plan.fingerprints import fingerprints, hashed
from sae_sweep.plan.groups import Plan, stream_key
from sae_sweep.plan.labels import base_label, new_labels
from sae_sweep.plan.members import Member, changed

State = Literal["planned", "running", "interrupted", "finished", "failed"]

SHOWN_DIFFERENCES = 4


@dataclass(frozen=True)
class MemberResult:
    """How one member's training ended."""

    metrics: dict[str, Any] | None
    """The flat metrics of metrics.json; None when it failed."""
    reason: str | None
    """Why it failed, in one line; None when it finished."""


def sweep_root(config: MemberConfig) -> Path:
    """Where the member's sweep lives."""
    return Path(config.output_dir).expanduser() / config.name


def state_place(root: Path, task: str | None) -> Path:
    """Where a sweep's own state is, or that of one of its tasks."""
    return root / names.STATE if task is None else root / names.STATE / names.TASKS / task


@contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Only one process of those that train a sweep's tasks is in such a block. Without tasks, or where the file system
    has no locks, nobody is kept waiting."""
    try:
        descriptor = os.open(root / names.STATE / names.TASKS / names.WRITE_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep. Nothing is written before `begin`."""

    root: Path
    task: str | None = None
    """The task whose worker writes here; None for a process that has the sweep to itself."""

    def member_folder(self, label: str) -> Path:
        """Where a member's files are."""
        return self.root / label

    def milestone_folder(self, label: str, tokens: int) -> Path:
        """Where a member's snapshot after so many training tokens is."""
        return self.member_folder(label) / names.MILESTONES / str(tokens)

    def has_milestone(self, label: str, tokens: int) -> bool:
        """Whether a member's snapshot is there, whole."""
        return (self.milestone_folder(label, tokens) / names.METRICS).is_file()

    def read(self) -> dict[str, Any]:
        """The entries of sweep.json, brought up to date; without members where there is none yet.

        Raises ConfigError when the file cannot be read or is of another version.
        """
        return read_record(self.root) if (self.root / names.SWEEP).exists() else new_record(self.root.name)

    def named(self, plan: Plan) -> Plan:
        """The plan with the names its members have, or get, in this folder.

        A member that is already here keeps its name. Raises ConfigError when a new member's name, before
        its axes, is held by a member that this command does not ask for.
        """
        here: dict[str, Any] = self.read()["members"]
        known = {entry["identity"] for entry in here.values()}
        asked = {member.identity for member in plan.members}
        for member in plan.members:
            base = base_label(member.config)
            holder = here.get(base)
            if holder is not None and member.identity not in known and holder["identity"] not in asked:
                raise _held(self.root / base, holder["config"], member)
        return plan.labelled(new_labels(plan.members, here))

    def check_place(self) -> None:
        """Raises ConfigError where the folder could not be made or written to."""
        place = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            what = "cannot be written to" if place.is_dir() else "is a file, not a folder"
            raise ConfigError(f"output_dir={self.root.parent}: {place} {what}; give another output_dir=")

    def finished(self, plan: Plan) -> set[str]:
        """Identities of the members that need no more training."""
        here = self.read()["members"]
        return {member.identity for member in plan.members if self._is_finished(member.label, here)}

    def check_content(self, plan: Plan) -> None:
        """Raises ConfigError where the folder's members were begun on other content under the same names."""
        check_content(plan, self.read()["members"])

    def begin(self, plan: Plan, resumed: Collection[str] = (), elsewhere: Collection[str] = ()) -> None:
        """Make the folders, write each unfinished member's config.yaml, and put the plan into sweep.json.

        `resumed` are identities of members that go on from a checkpoint: they keep their curves. Those `elsewhere` are
        in other hands and stay as they are.
        """
        here, begun, content = self.read()["members"], {}, dict[str, Any]()
        check_content(plan, here, resumed)  # what the hub has may have moved while it was loaded
        self._make_root()
        clear_leftovers(self.root)
        for member in plan.members:
            if member.identity not in elsewhere and not self._is_finished(member.label, here):
                self._begin_member(member, member.identity in resumed)
                key = stream_key(member.config)
                if key not in content:
                    content[key] = hashed(fingerprints(member.config))
                begun[member.label] = member_entry(member, content[key])
        self._write_own({label: {"state": "planned", "reason": None} for label in begun})
        with self._writing() as entries:
            entries["members"] |= begun
            if self.task is None:
                entries["plan"] = plan_entries(plan)

    def mark(self, labels: Iterable[str], state: State, reason: str | None) -> None:
        """Write the members' state; `reason` says why they failed. Raises ConfigError where they are in the folder no
        more: somebody removed it while they were trained, and made it anew."""
        marks = {label: {"state": state, "reason": reason} for label in labels}
        self._write_own(marks)
        with self._writing() as entries:
            if gone := marks.keys() - entries["members"].keys():
                raise ConfigError(
                    f"output_dir: {self.root} was removed while its members were trained ({', '.join(sorted(gone))});"
                    " give the same command again, or another name="
                )
            for label, mark in marks.items():
                entries["members"][label] |= mark

    def _begin_member(self, member: Member, resumed: bool) -> None:
        folder = self.member_folder(member.label)
        folder.mkdir(exist_ok=True)
        for place in (folder, *(folder / names.MILESTONES).glob("*")):
            clear_leftovers(place, own=True)
        for name in names.TRAINED_FILES:  # of an attempt that did not finish
            if name not in (names.CURVES, names.TIMES) or not resumed:
                (folder / name).unlink(missing_ok=True)
        if not resumed:
            shutil.rmtree(folder / names.MILESTONES, ignore_errors=True)
        self.write_config(member)

    def write_config(self, member: Member) -> None:
        """Write a member's config.yaml, as far as it is resolved."""
        text = OmegaConf.to_yaml(OmegaConf.create(config_entries(member.resolved)))
        write_text_atomic(self.member_folder(member.label) / names.CONFIG, text)

    def _write_own(self, marks: Mapping[str, Any]) -> None:
        if self.task is not None:
            file = state_place(self.root, self.task) / names.STATES
            write_json_atomic(file, {**read_states(file), **marks})

    @contextmanager
    def _writing(self) -> Iterator[dict[str, Any]]:
        """The entries of sweep.json, to be changed and then written."""
        with one_at_a_time(self.root):
            entries = self.read()
            yield entries
            write_json_atomic(self.root / names.SWEEP, entries)

    def read_metrics(self, label: str) -> dict[str, Any]:
        """The final metrics of a finished member."""
        return read_object(self.member_folder(label) / names.METRICS)

    def _make_root(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"output_dir: {self.root} cannot be made ({error.strerror}); give a folder that can be written"
            ) from error

    def _is_finished(self, label: str, here: Mapping[str, Any]) -> bool:
        if label not in here or here[label]["state"] != "finished":
            return False
        if not is_whole_safetensors(self.member_folder(label) / names.WEIGHTS):
            return False
        try:
            self.read_metrics(label)
        except (OSError, ValueError):
            return False  # damaged: it is trained again
        return True


def _held(folder: Path, old: Mapping[str, Any], member: Member) -> ConfigError:
    every = [f"{key}: {shown(was)} -> {shown(now)}" for key, (was, now) in changed(old, member.config).items()]
    changes = every[:SHOWN_DIFFERENCES]
    more = f", and {len(every) - len(changes)} more" if len(every) > len(changes) else ""
    return ConfigError(
        f"name={member.config.name}: {folder} holds a member of another config ({', '.join(changes)}{more});"
        " give another name=, or the old values, or ask for old and new together"
    )
