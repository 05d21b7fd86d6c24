"""How a group is opened: its source, the trainers of its banks, its evaluators, made from the first block."""

from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.outliers import row_norms
from sae_sweep.activations.scaling import SiteStatistics, site_statistics
from sae_sweep.config.schema import MemberConfig
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.host.machine import host_bytes
from sae_sweep.host.memory import give_back
from sae_sweep.host.signals import Stop, stopping
from sae_sweep.model.load import resolve_device
from sae_sweep.plan.groups import BankPlan, Group, hooks_of
from sae_sweep.plan.limits import check_shared
from sae_sweep.plan.placement import Pass, Wave, check_host, plan_passes
from sae_sweep.tracking.progress import Progress, quiet
from sae_sweep.training.devices import joining
from sae_sweep.training.devices.joining import join, joined
from sae_sweep.training.devices.paged import Paged
from sae_sweep.training.devices.ranks import Ranks, nothing
from sae_sweep.training.devices.waves import Waves, memory_limits
from sae_sweep.training.run.blocks import first_block
from sae_sweep.training.run.loop import GroupRun
from sae_sweep.training.run.sources import Source, open_source
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.objectives import EndToEnd
from sae_sweep.training.step.trainer import BankTrainer

SAE_DTYPE = torch.float32
"""Of parameters, moments and arithmetic."""


def passes(group: Group) -> list[Pass]:
    """The passes of a group on this machine, with as many ranks as it has. Raises ConfigError where an SAE does not
    fit it, or on a CPU a pass."""
    config = group.members[0].config
    ranks = join(config.launcher, config.model.device)
    for member in group.members:
        check_shared(member.config, ranks.size)
    planned = plan_passes(group, *memory_limits(config), ranks.size, ranks.hosts)
    if resolve_device(config.model.device).type == "cpu" and (host := host_bytes()) is not None:
        check_host(planned, host)
    return planned


def open_group(group: Group, waves: Sequence[Wave] = (), progress: Progress | None = None) -> "GroupRun":
    """Load what a group needs, on all ranks; without waves all its members share the device. Writes nothing but to
    data.cache, so what only shows now leaves no trace: raises ConfigError. `progress` is told of all that comes."""
    ranks = joined()
    ranks.shared(lambda: (group, waves))
    with ranks.together():
        return _opened(group, waves, ranks, progress or Progress(group.members[0].config.name))


def follow() -> None:
    """Open and train the groups that rank 0 does, until there are no more."""
    with stopping() as stop, stop.at_once(False):
        joining.follow(partial(_follow, stop))


def _follow(stop: Stop, company: Ranks) -> None:
    group, waves = company.shared(nothing)
    _opened(group, waves, company, quiet()).follow(stop)


def _opened(group: Group, waves: Sequence[Wave], ranks: Ranks, progress: Progress) -> "GroupRun":
    waves = waves or plan_passes(group, None, None)[0].waves
    own = [wave for wave in waves if wave.device == ranks.rank]
    banks = [bank for wave in own for bank in wave.banks]
    config = group.members[0].config
    hooks = group.hooks if ranks.alone else hooks_of(banks)
    configs = [member.config for member in group.members]
    source = ranks.ready(partial(open_source, configs, hooks, group.spliced, ranks, progress))
    progress.read(0, 0.0)
    first = first_block(source, ranks, progress.message)
    for bank in banks:
        _check_block(first, bank)
    for hook in first.inliers:
        progress.message(f"data.max_norm_ratio={shown(config.data.max_norm_ratio)}: {_outliers(first, hook)}")
    progress.stage("preparing members")
    if source.device.type == "cpu":
        from sae_sweep.kernels.cpu.compiling import tell_compiling  # numba, which a GPU does without

        tell_compiling(partial(progress.stage, "compiling loops, once"))
    calibrations, means = _calibrated(banks, source, first)
    stamp = ranks.shared(partial(stream_stamp, first))
    waits = _waits(config, own, source.device, ranks)

    made = (BankTrainer(*pair) for pair in zip(banks, calibrations, strict=True))
    trainees = (Paged(trainer) if waits else trainer for trainer in made)  # one after the other
    turns = Waves([[next(trainees) for _ in wave.banks] for wave in own], [wave.ahead for wave in own])
    positions = {member.config.evaluation.positions for bank in banks for member in bank.members}
    watched = dict.fromkeys(hook for bank in banks for member in bank.members for hook in member.watched)
    evaluators = {each: source.evaluator(each, means, tuple(watched)) for each in sorted(positions)}
    give_back()  # tokenising a text and measuring a block take more than is left of them
    ranks.exchange(None)  # nothing is written before all are ready
    return GroupRun(group, source, turns, evaluators, first, progress, stamp, ranks)


def _outliers(first: Block, hook: str) -> str:
    """How many activations of a site do not count in the first block, in words."""
    norms_B, inlier_B = row_norms(first.activations[hook]), first.inliers[hook]
    times_B = norms_B[~inlier_B] / norms_B.median()
    least, most = float(times_B.min()), float(times_B.max())
    return (
        f"{len(times_B):,} of {len(norms_B):,} activations of the first block at {hook} do not count:"
        f" they are {least:.3g} to {most:.3g} times as long as the median"
    )


def _calibrated(banks: Sequence[BankPlan], source: Source, block: Block) -> tuple[list[Calibration], dict[str, Tensor]]:
    """The calibration of each bank on a block, and the mean activations [d] by the hooks that are spliced."""
    asked = {(bank.site.hooks, centred): bank for bank in banks for centred in (False, True)}
    whitening = {bank.site.hooks for bank in banks if bank.members[0].config.sae.whitens}
    statistics = {
        (hooks, centred): site_statistics(block, hooks, centred=centred, covariance=hooks in whitening)
        for hooks, centred in asked
    }
    objectives = {
        _objective(bank): _end_to_end(bank, source, block, statistics[bank.site.hooks, False]) for bank in banks
    }
    tabled = {bank.site.hook for bank in banks if bank.members[0].config.sae.lookup != "none"}
    unigrams = source.unigrams(sorted(tabled)) if tabled else {}

    def calibration(bank: BankPlan) -> Calibration:
        site, sae = bank.site, bank.members[0].config.sae
        measured = statistics[site.hooks, sae.centre]
        return Calibration(
            sites=tuple(measured[hook] for hook in site.reads),
            device=source.device,
            dtype=SAE_DTYPE,
            targets=tuple(measured[hook] for hook in site.writes) if site.output else (),
            unigrams_VD=unigrams[site.hook] if sae.lookup != "none" else None,
            end_to_end=objectives[_objective(bank)],
        )

    spliced = [hook for bank in banks for hook in bank.site.writes]
    alone = site_statistics(block)
    means = {hook: alone[hook].mean for hook in spliced}
    return [calibration(bank) for bank in banks], means


def _objective(bank: BankPlan) -> tuple[object, ...]:
    """What the objective of a bank depends on."""
    training = bank.members[0].config.training
    return bank.site.hook, training.batch_size, *training.objective_keys.values()


def _end_to_end(
    bank: BankPlan, source: Source, block: Block, statistics: Mapping[str, SiteStatistics]
) -> EndToEnd | None:
    """The objective of a bank, measured on the first block; None where it is local."""
    first = bank.members[0]
    training, data = first.config.training, first.config.data
    if training.local:
        return None
    assert source.splicing is not None
    rows = training.batch_size // data.context
    made = EndToEnd(source.splicing, bank.site.hook, first.later, training, rows)
    made.calibrate(block, statistics[bank.site.hook].mean)
    return made


def _waits(config: MemberConfig, waves: Sequence[Wave], device: torch.device, ranks: Ranks) -> bool:
    """Whether members begin in the host's memory: where they take turns, and where the device may prove too small in
    the first block, unless the host has no room for that."""
    if len(waves) != 1:
        return len(waves) > 1
    if device.type != "cuda" and config.launcher.memory_gb is None:
        return False
    _, host = memory_limits(config)
    return host is None or waves[0].waiting_bytes <= host * ranks.hosts / ranks.size


def stream_stamp(block: Block) -> str:
    """Hash of the first block's tokens, on whatever device: those of outliers too, which depend on activations."""
    tokens_B = next(iter(block.tokens.values())).cpu().contiguous()
    return blake2b(tokens_B.numpy().data, digest_size=8).hexdigest()


def _check_block(block: Block, bank: BankPlan) -> None:
    count, first = block.count(bank.site.hooks), bank.members[0]
    for hook, width in first.widths.items():
        found = block.activations[hook].shape[1]
        if found != width:
            raise ConfigError(
                f"site.width: {hook} gives {found} numbers per position, and {width} were planned; give"
                f" site.width={found}"
            )
    if first.config.training.local and count < first.config.training.batch_size:
        raise ConfigError(
            f"training.batch_size={first.config.training.batch_size} is larger than a block of activations, which has"
            f" {count} counted positions; lower it or raise data.block_rows={first.config.data.block_rows}"
        )
