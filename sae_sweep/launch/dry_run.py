"""What `dry_run=true` prints: the plan, its cost, and what is already done."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from sae_sweep.activations.cache_folder import cache_key, files_there
from sae_sweep.config.schema import MemberConfig
from sae_sweep.config.values import counted, duration
from sae_sweep.data.kinds import data_kind, modelless_kind
from sae_sweep.errors import ConfigError
from sae_sweep.host.machine import gpu_bytes, host_bytes
from sae_sweep.host.terminal import tell
from sae_sweep.launch.plan_tables import print_banks, print_members
from sae_sweep.model.device_map import in_words
from sae_sweep.model.facts import longest_row
from sae_sweep.model.second import models_of
from sae_sweep.plan.axes import KIND, SIZE, SPARSITY, axes
from sae_sweep.plan.costs import PassCost, pass_cost
from sae_sweep.plan.devices import DEVICES, GPU, SHARE, on_gpu
from sae_sweep.plan.fingerprints import fingerprints
from sae_sweep.plan.groups import BankPlan, Group, Plan
from sae_sweep.plan.members import identity_entries
from sae_sweep.plan.memory import Peak, peak
from sae_sweep.plan.placement import GB, USABLE, Pass, Wave, check_host, plan_passes
from sae_sweep.plan.schedules import blocks_needed
from sae_sweep.plan.sizes import block_bytes, bytes_text, member_numbers

WEIGHT_BYTES = 4
"""Of a number in a saved member."""
BYTES_PER_TOKEN = 4
"""Of text, about: what a plan goes by, which tokenizes nothing."""
PACKED = (".gz", ".zst", ".xz", ".bz2", ".parquet", ".arrow")
"""Files whose size says nothing of how much text they are."""
SHOWN = (KIND, SPARSITY, SIZE, "site.", "training.lr", "training.batch_size", "training.tokens")
"""Axes that those columns, or the bank's, show."""


def print_plan(plan: Plan, root: Path, finished: Collection[str], *, here: bool) -> None:
    """Print the plan to standard output; `finished` are identities that need no more training, and so no pass. `here`
    it would be trained on this machine: raises ConfigError where that has not the memory."""
    banks = sum(len(group.banks) for group in plan.groups)
    left = {group.key: _passes(group, here) for group in plan.without(finished).groups}
    small = _too_small([one for each in left.values() for one in each]) if here else None
    made = sum(map(len, left.values()))
    tell(
        f"{root}: {counted(len(plan.members), 'member')} in {counted(len(plan.groups), 'group')} of"
        f" {'one pass each' if made == len(left) else f'{made} passes in all'},"
        f" {counted(banks, 'bank')}; {len(finished)} finished already"
    )
    entries = {member.label: identity_entries(member.config) for member in plan.members}
    varying = [axis for axis in axes(entries) if not axis.key.startswith(SHOWN)]
    for group in plan.groups:
        print()
        table = print_members if plan.members[0].config.dry_run == "members" else print_banks
        table(_title(group), group, finished, varying)
        for line in _group(group, left.get(group.key, [])):
            tell(line)
    if small is not None:
        print()
        tell(f"does not fit: {small}")


def _group(group: Group, passes: Sequence[Pass]) -> Iterator[str]:
    """What a group reads, holds and costs."""
    config = group.members[0].config
    if (note := data_kind(config.data.kind).note(config.data)) is not None:
        yield note
    if (ratio := config.data.max_norm_ratio) is not None:
        far = f"far above (data.max_norm_ratio={ratio})" if isinstance(ratio, str) else f"over {ratio:g} times"
        yield f"outliers: activations {far} the first block's median norm at their site do not count"
    if config.launcher.devices == 1:
        yield _memory(peak(group, group.banks))
    if milestones := _milestones(group):
        yield milestones
    if (reading := _reading(group, passes)) is not None:
        yield reading
    yield from _fitting(group)
    for number, one in enumerate(passes, 1):
        yield from _pass(one, f"pass {number} of {len(passes)}")
    cache = _cache(group, block_bytes(group))
    if cache is not None and not group.spliced:
        yield cache


def _title(group: Group) -> str:
    config = group.members[0].config
    made = modelless_kind(config.data.kind)
    if made is not None:
        told = f"{made.title(asdict(config.data))}, {config.model.dtype}, {config.model.device}"
        return f"group {group.key}: {made.NOUN} ({told})"
    model = " and ".join(one.name for one in models_of(config))
    run = (config.model.backend, config.model.dtype, config.model.quantize, in_words(config.model))
    return (
        f"group {group.key}: model {model} ({', '.join(filter(None, run))}), data {config.data.kind}, context"
        f" {config.data.context},"
        f" sites {', '.join(group.hooks)}"
    )


def _memory(fullest: Peak) -> str:
    held = ", ".join(f"{name} {bytes_text(size)}" for name, size in fullest.held.items() if size)
    return f"memory of all together: {bytes_text(fullest.total)} at the fullest, {fullest.phase}: {held}"


def _reading(group: Group, passes: Sequence[Pass]) -> str | None:
    """How long rows are beside what the model reads, and how often the text is read; None without a model."""
    config = group.members[0].config
    if not data_kind(config.data.kind).MODEL:
        return None
    longest = longest_row(config.model)
    told = f"rows: {config.data.context} tokens" + (f", of at most {longest}" if longest is not None else "")
    text = _text_bytes(config)
    if not passes or text is None:
        return told
    epochs = max(pass_cost(one).tokens for one in passes) / (text / BYTES_PER_TOKEN)
    return f"{told}; {epochs:.2g} epochs of {bytes_text(text)} of text, about"


def _text_bytes(config: MemberConfig) -> int | None:
    """Of the text that is trained on; None where its files do not say."""
    found = [each for key, each in fingerprints(config).items() if key.partition(" ")[0] in ("data", "data.path")]
    files = {name: about for each in found for name, about in each.get("files", {}).items()}
    if not files or not data_kind(config.data.kind).TOKENIZES or any(name.endswith(PACKED) for name in files):
        return None
    return sum(int(about["bytes"]) for about in files.values())


def _fitting(group: Group) -> Iterator[str]:
    """On which devices the group fits, all together or in turns, and what to do for one on which it does not."""
    config = group.members[0].config
    asked = config.launcher
    if asked.memory_gb is not None or asked.devices > 1 or config.model.device == "cpu":
        return
    gpu = replace(config.model, device="cuda")
    members = {m.identity: replace(m, config=replace(m.config, model=gpu)) for m in group.members}
    banks = [BankPlan(bank.site, tuple(members[m.identity] for m in bank.members)) for bank in group.banks]
    there = Group(group.key, tuple(banks), group.hooks)
    fits, refused = list[str](), dict[str, list[str]]()
    for memory in sorted({device.memory for device in DEVICES}):
        names = ", ".join(device.name for device in DEVICES if device.memory == memory)
        told = f"{names} ({bytes_text(memory)})"
        try:
            turns = max(len(one.waves) for one in plan_passes(there, USABLE * memory, None))
            fits.append(f"{told} {'together' if turns == 1 else f'in {turns} turns'}")
        except ConfigError as error:
            refused.setdefault(str(error).partition(": ")[2], []).append(told)
    if fits:
        yield f"fits: {'; '.join(fits)}"
    for why, each in refused.items():
        yield f"does not fit: {', '.join(each)}: {why}"


def _milestones(group: Group) -> str | None:
    """How many snapshots there will be, and what they take of the disk."""
    sizes = [WEIGHT_BYTES * member_numbers(m) for m in group.members for _ in m.schedule.milestones]
    if not sizes:
        return None
    each = f"each judged on {group.members[0].config.evaluation.tokens:g} held-out tokens"
    return f"milestones: {counted(len(sizes), 'snapshot')}, {bytes_text(sum(sizes))}; {each}"


def _too_small(planned: Sequence[Pass]) -> str | None:
    """Why this machine's memory is too small for passes on its CPU, in words; None where it is not, or they are on a
    GPU. Raises ConfigError where they are on a CPU by name: it may be that `auto` finds a GPU where the plan is for."""
    on_cpu = [one for one in planned if not on_gpu(one.group.members[0].config)]
    if not on_cpu or (host := host_bytes()) is None:
        return None
    try:
        check_host(on_cpu, host)
    except ConfigError as error:
        if any(one.group.members[0].config.model.device == "cpu" for one in on_cpu):
            raise
        return str(error)
    return None


def _passes(group: Group, here: bool = False) -> list[Pass]:
    """The passes under the limits that the config states; `here`, those of a GPU of this machine where it has one."""
    config = group.members[0].config
    asked = config.launcher
    device, host = (None if value is None else value * GB for value in (asked.memory_gb, asked.host_memory_gb))
    if device is None and here and GPU.exists() and on_gpu(config) and (size := gpu_bytes()) is not None:
        device = USABLE * size
    return plan_passes(group, device, host, asked.devices, asked.hosts)


def _pass(made: Pass, name: str) -> Iterator[str]:
    """What a pass costs, and which members are where."""
    cost, config = pass_cost(made), made.group.members[0].config
    yield f"{name}: {_compute(cost)}"
    yield from _hours(cost, config)
    waits = f"; {bytes_text(made.host_bytes)} wait in the host's memory" if made.host_bytes else ""
    yield (
        f"  disk: a checkpoint {bytes_text(cost.checkpoint_bytes)} (two are kept), results"
        f" {bytes_text(cost.result_bytes)}{waits}"
    )
    if made.devices > 1 and cost.sent_bytes:
        most = max(device.received_bytes for device in cost.devices)
        total = cost.sent_bytes * cost.blocks
        yield (
            f"  network: {bytes_text(cost.sent_bytes)} between devices a block, at most {bytes_text(most)} of it to one"
            f" device; {bytes_text(cost.sent_per_step)} a step, {bytes_text(total)} in all"
        )
    if made.devices > 1 or config.launcher.memory_gb is not None:
        for device in range(made.devices):
            yield from _turns(made.at(device), f"device {device}", cost.devices[device].block_bytes)


def _compute(cost: PassCost) -> str:
    passes, judging, encoder, dense = (
        sum(getattr(device, f"{kind}_flops") for device in cost.devices)
        for kind in ("model", "judging", "encoder", "dense")
    )
    model = f"the model {passes:.2g} FLOP, judging {judging:.2g}, " if passes else ""
    return (
        f"{cost.tokens:.3g} tokens in {counted(cost.blocks, 'block')}; {model}SAE encoders"
        f" {encoder:.2g} FLOP ({dense:.2g} if every step were dense)"
    )


def _hours(cost: PassCost, config: MemberConfig) -> Iterator[str]:
    """By the rate that is stated, else on the devices of the table."""
    device_flops = config.launcher.device_flops
    if device_flops is not None:
        least, most = cost.hours(device_flops)
        yield (
            f"  time: {least:.2g} hours with sparse steps, {most:.2g} if all were dense, should each device get"
            f" launcher.device_flops={device_flops:.3g} done in a second"
        )
    elif config.model.device != "cpu":
        each = ((device.name, *cost.hours(device.flops(config.model.dtype))) for device in DEVICES)
        told = ", ".join(f"{name} {duration(3600 * least)}-{duration(3600 * most)}" for name, least, most in each)
        yield f"  time: {told}: sparse to dense steps, at {SHARE:.0%} of peak (launcher.device_flops says another rate)"


def time_here(plan: Plan, device_flops: float) -> str:
    """How long the plan takes on a machine of so many operations a second, in a line."""
    costs = [pass_cost(made).hours(device_flops) for group in plan.groups for made in _passes(group)]
    least, most = (3600 * sum(hours) for hours in zip(*costs, strict=True))
    return (
        f"time here: {duration(least)} with sparse steps, {duration(most)} if all were dense, at {device_flops:.2g}"
        " operations a second, as measured once on this machine"
    )


def _turns(waves: Sequence[Wave], device: str, block: int) -> Iterator[str]:
    """The members of one device."""
    if not waves:
        yield f"  {device}: no members, its share of the rows only"
    for turn, wave in enumerate(waves, 1):
        which = f", wave {turn} of {len(waves)}" if len(waves) > 1 else ""
        every = wave.members[0].config.dry_run == "members"
        labels = ", ".join(m.label for m in wave.members) if every else counted(len(wave.members), "member")
        held = f"block {bytes_text(block)}"
        if wave.ahead:
            held += f", the next wave {bytes_text(waves[turn].state_bytes)}"
        yield f"  {device}{which}: {bytes_text(wave.peak_bytes)} ({held}): {labels}"


def _cache(group: Group, block: int) -> str | None:
    """What data.cache will hold, by the positions that rows have at most, and what of it is there."""
    config = group.members[0].config
    if config.data.cache is None:
        return None
    positions = config.data.block_rows * config.data.context
    blocks = blocks_needed([member.config for member in group.members], positions)
    folder = Path(config.data.cache).expanduser() / f"{cache_key(config)}-*"  # then the device, which is not known yet
    there = max((files_there(path, group.hooks, blocks) for path in folder.parent.glob(folder.name)), default=0)
    return (
        f"cache: about {counted(blocks, 'block')} x {bytes_text(block)} = {bytes_text(blocks * block)} in"
        f" {folder}; {there} of {counted(blocks * len(group.hooks), 'file')} there already"
    )
