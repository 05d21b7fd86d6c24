"""The table of a group in a plan: a line for each bank, or with `dry_run=members` for each member."""

import sys
from collections.abc import Collection, Hashable, Sequence

from sae_sweep.config.values import shown
from sae_sweep.launch.tables import print_table
from sae_sweep.plan.axes import Axis
from sae_sweep.plan.groups import BankPlan, Group
from sae_sweep.plan.members import Member, sparsity
from sae_sweep.plan.sizes import member_parameters

COLUMNS = ("latents", "sparsity", "parameters", "batch", "steps", "lr", "schedule", "state")
FEW = 4
"""Values that are listed; of more there are the ends and how many."""


def print_banks(title: str, group: Group, finished: Collection[str], varying: Sequence[Axis]) -> None:
    """A line for each bank: its members, what they share, and what varies among them."""
    rows = []
    for number, bank in enumerate(group.banks):
        lines = [_row(member, finished) for member in bank.members]
        done = sum(member.identity in finished for member in bank.members)
        numbers = sum(map(member_parameters, bank.members))
        state = "to train" if not done else f"{done} of {len(bank.members)} finished"
        rows.append(
            (
                f"{number} {bank_name(bank)}",
                str(len(bank.members)),
                *(_several([axis.values[member.label] for member in bank.members]) for axis in varying),
                _several([line[0] for line in lines]),
                _sparsities(bank.members),
                f"{numbers:,}",
                *(_several([line[column] for line in lines]) for column in (3, 4, 5, 6)),
                state,
            )
        )
    print_table(title, ("bank", "members", *(axis.title for axis in varying), *COLUMNS), rows, sys.stdout)


def print_members(title: str, group: Group, finished: Collection[str], varying: Sequence[Axis]) -> None:
    """A line for each member."""
    rows = [
        (
            *(f"{number} {bank_name(bank)}", member.label, *(axis.values[member.label] for axis in varying)),
            *_row(member, finished),
        )
        for number, bank in enumerate(group.banks)
        for member in bank.members
    ]
    print_table(title, ("bank", "member", *(axis.title for axis in varying), *COLUMNS), rows, sys.stdout)


def bank_name(bank: BankPlan) -> str:
    """What a bank is called: architecture and site."""
    return f"{bank.members[0].config.sae.method()} at {bank.site.name}"


def _row(member: Member, finished: Collection[str]) -> tuple[str, ...]:
    knob, value = sparsity(member.config)
    return (
        str(member.width),
        f"{knob} {shown(value)}",
        f"{member_parameters(member):,}",
        str(member.config.training.batch_size),
        str(member.schedule.total_steps),
        f"{member.schedule.lr:.3g}",
        _schedule(member),
        "finished" if member.identity in finished else "to train",
    )


def _sparsities(members: Sequence[Member]) -> str:
    """By key: `l0 8, 16, 32`."""
    found: dict[str, list[float]] = {}
    for member in members:
        knob, value = sparsity(member.config)
        found.setdefault(knob, []).append(value)
    return "; ".join(
        f"{knob} {_several([shown(value) for value in sorted(set(some))])}" for knob, some in found.items()
    )


def _several(values: Sequence[Hashable]) -> str:
    """The different ones among values, all where they are few."""
    found = [str(value) for value in dict.fromkeys(values)]
    return ", ".join(found) if len(found) <= FEW else f"{found[0]} to {found[-1]} ({len(found)} values)"


def _schedule(member: Member) -> str:
    schedule = member.schedule
    parts = [f"biases at {schedule.bias_lr:.3g} lr"] * (schedule.bias_lr != 1)
    parts.append(f"warm-up {schedule.lr_warmup_steps}")
    if schedule.sparsity_warmup_steps and member.config.sae.coefficient() is not None:
        parts.append(f"sparsity warm-up {schedule.sparsity_warmup_steps}")
    if schedule.lr_decay_steps:
        shape = "cosine " if schedule.lr_schedule == "cosine" else ""
        parts.append(f"{shape}decay {schedule.lr_decay_steps}")
    if schedule.resample_steps:
        parts.append(f"resample at {', '.join(map(str, schedule.resample_steps))}")
    if schedule.milestones:
        parts.append(f"milestones at {', '.join(str(milestone.step) for milestone in schedule.milestones)}")
    return "; ".join(parts)
