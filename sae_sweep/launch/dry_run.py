"""What `dry_run=true` prints: the plan, its cost, and what is already done."""

import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from sae_sweep.activations.cache_folder import blocks_needed, cache_key, files_there
from sae_sweep.config import shown
from sae_sweep.estimates import Estimate, bytes_text, estimate, member_numbers, member_parameters
from sae_sweep.launch.tables import print_table
from sae_sweep.passes import GB, Pass, plan_passes
from sae_sweep.plan import Bank, Group, Member, Plan, sparsity

WEIGHT_BYTES = 4
"""Of a number in a saved member."""
HEADER = ("bank", "member", "latents", "sparsity", "parameters", "batch", "steps", "lr", "schedule", "state")


def print_plan(plan: Plan, root: Path, finished: Collection[str]) -> None:
    """Print the plan to standard output; `finished` are identities that need no more training."""
    banks = sum(len(group.banks) for group in plan.groups)
    planned = [(group, _passes(group)) for group in plan.groups]
    made = sum(len(passes) for _, passes in planned)
    print(
        f"{root}: {counted(len(plan.members), 'member')} in {counted(len(plan.groups), 'group')} of"
        f" {'one pass each' if made == len(plan.groups) else f'{made} passes in all'},"
        f" {counted(banks, 'bank')}; {len(finished)} finished already"
    )
    for group, passes in planned:
        rows = [
            _row(f"{number} {_bank_name(bank)}", member, finished)
            for number, bank in enumerate(group.banks)
            for member in bank.members
        ]
        print()
        print_table(_title(group), HEADER, rows, sys.stdout)
        cost = estimate(group)
        print(_cost(cost))
        if milestones := _milestones(group):
            print(milestones)
        for line in _turns(group, passes):
            print(line)
        cache = _cache(group, cost.block_bytes)
        if cache is not None and not group.spliced:
            print(cache)


def counted(number: int, noun: str) -> str:
    """`1 member`, `2 members`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _title(group: Group) -> str:
    config, toy = group.members[0].config, group.members[0].config.data.toy
    if toy is not None:
        return (
            f"group {group.key}: synthetic activations ({toy.latents} true latents in {toy.dimensions} dimensions,"
            f" {config.model.dtype}, {config.model.device})"
        )
    return (
        f"group {group.key}: model {config.model.name} ({config.model.backend}, {config.model.dtype},"
        f" {config.model.device}), data {config.data.kind}, context {config.data.context},"
        f" sites {', '.join(group.hooks)}"
    )


def _bank_name(bank: Bank) -> str:
    return f"{bank.members[0].config.sae.method()} at {bank.site.name}"


def _row(bank: str, member: Member, finished: Collection[str]) -> tuple[str, ...]:
    knob, value = sparsity(member.config)
    return (
        bank,
        member.label,
        str(member.width),
        f"{knob} {shown(value)}",
        f"{member_parameters(member):,}",
        str(member.config.training.batch_size),
        str(member.schedule.total_steps),
        f"{member.schedule.lr:.3g}",
        _schedule(member),
        "finished" if member.identity in finished else "to train",
    )


def _schedule(member: Member) -> str:
    schedule = member.schedule
    parts = [f"warm-up {schedule.lr_warmup_steps}"]
    if schedule.sparsity_warmup_steps:
        parts.append(f"sparsity warm-up {schedule.sparsity_warmup_steps}")
    if schedule.lr_decay_steps:
        parts.append(f"decay {schedule.lr_decay_steps}")
    if schedule.resample_steps:
        parts.append(f"resample at {', '.join(map(str, schedule.resample_steps))}")
    if schedule.milestones:
        parts.append(f"milestones at {', '.join(str(milestone.step) for milestone in schedule.milestones)}")
    return "; ".join(parts)


def _cost(cost: Estimate) -> str:
    model_flops = f" model {cost.model_flops:.2g} FLOP," if cost.model_flops else ""
    parts = ", ".join(f"{name} {bytes_text(size)}" for name, size in cost.peak.parts.items() if size)
    return (
        f"memory {bytes_text(cost.peak.total)} at the fullest, {cost.peak.phase}: {parts}\n"
        f"compute:{model_flops} SAE encoders {cost.encoder_flops:.2g} FLOP"
        f" ({cost.dense_flops:.2g} if every step were dense)"
    )


def _milestones(group: Group) -> str | None:
    """How many snapshots there will be, and what they take of the disk."""
    sizes = [WEIGHT_BYTES * member_numbers(m) for m in group.members for _ in m.schedule.milestones]
    if not sizes:
        return None
    each = f"each judged on {group.members[0].config.evaluation.tokens:g} held-out tokens"
    return f"milestones: {counted(len(sizes), 'snapshot')}, {bytes_text(sum(sizes))}; {each}"


def _passes(group: Group) -> list[Pass]:
    """The passes under the limits that the config states; what the machine has is not known here."""
    asked = group.members[0].config.launcher
    device, host = (None if value is None else value * GB for value in (asked.memory_gb, asked.host_memory_gb))
    return plan_passes(group, device, host)


def _turns(group: Group, passes: Sequence[Pass]) -> Iterator[str]:
    """Which members share the device, where a limit is stated."""
    asked = group.members[0].config.launcher
    if asked.memory_gb is None:
        return
    limit = f"launcher.memory_gb={shown(asked.memory_gb)}"
    for number, one in enumerate(passes, 1):
        which = f"pass {number} of {len(passes)}: " if len(passes) > 1 else ""
        if len(one.waves) == 1:
            (wave,) = one.waves
            yield f"{limit}: {which}{counted(len(wave.members), 'member')} together, {bytes_text(wave.peak_bytes)}"
            continue
        yield (
            f"{limit}: {which}{len(one.waves)} waves take turns in each block,"
            f" {bytes_text(one.host_bytes)} wait in the host's memory"
        )
        for turn, wave in enumerate(one.waves, 1):
            labels = ", ".join(member.label for member in wave.members)
            yield f"  wave {turn}, {bytes_text(wave.peak_bytes)}: {labels}"


def _cache(group: Group, block_bytes: int) -> str | None:
    """What data.cache will hold, by the positions that rows have at most, and what of it is there."""
    config = group.members[0].config
    if config.data.cache is None:
        return None
    positions = config.data.block_rows * config.data.context
    blocks = blocks_needed([member.config for member in group.members], positions)
    folder = Path(config.data.cache).expanduser() / f"{cache_key(config)}-*"  # then the device, which is not known yet
    there = max((files_there(path, group.hooks, blocks) for path in folder.parent.glob(folder.name)), default=0)
    return (
        f"cache: about {counted(blocks, 'block')} x {bytes_text(block_bytes)} = {bytes_text(blocks * block_bytes)} in"
        f" {folder}; {there} of {counted(blocks * len(group.hooks), 'file')} there already"
    )
