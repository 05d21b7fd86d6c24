"""What one pass costs: floating-point operations, tokens, and bytes in memory, on the network and on disk. No torch.

All follows from sizes, but for the hours, which rest on an assumption that the user makes: `launcher.device_flops`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from sae_sweep.config.schema import MemberConfig
from sae_sweep.data.kinds import data_kind
from sae_sweep.model.facts import ModelFacts
from sae_sweep.plan.flops import encoder_flops, harvest_flops, judging_flops, product_flops, splicing_flops
from sae_sweep.plan.members import Member
from sae_sweep.plan.placement import Pass, at
from sae_sweep.plan.schedules import blocks_needed, steps_in_block
from sae_sweep.plan.sizes import (
    FROZEN_BYTES,
    STATE_BYTES,
    block_bytes,
    facts_of_models,
    member_numbers,
    member_parameters,
)
from sae_sweep.plan.spread import shares

SILENT_BYTES = 8
"""Per latent in a checkpoint: for how long it has not fired."""
NUMBER_BYTES = 4
"""Of what is saved at the end."""
LINE_BYTES = 330
"""Of metrics.jsonl, per logged step, about."""


@dataclass(frozen=True)
class DeviceCost:
    """What one device does in a pass."""

    harvest_flops: float
    """Of the model, for its share of the rows."""
    splicing_flops: float
    """Of the model, for steps whose objective is not local."""
    judging_flops: float
    """Of the model and of its members' inference forms, on held-out tokens, as often as they are judged."""
    encoder_flops: float
    """Its members' encoder products, forward, and what goes with steps, not tokens: the least that sparse ones cost."""
    dense_flops: float
    """What its members' steps would cost if every product were dense."""
    block_bytes: int
    """Of a block at the sites of its members."""
    received_bytes: int
    """Of each block, from other devices."""

    @property
    def model_flops(self) -> float:
        """Of the model, for training."""
        return self.harvest_flops + self.splicing_flops

    @property
    def least_flops(self) -> float:
        """Floating-point operations of the model, of judging, and of steps that are sparse."""
        return self.model_flops + self.judging_flops + self.encoder_flops

    @property
    def most_flops(self) -> float:
        """The same where every step is dense."""
        return self.model_flops + self.judging_flops + self.dense_flops


@dataclass(frozen=True)
class PassCost:
    """What a pass costs. Bytes are those of all devices together."""

    devices: tuple[DeviceCost, ...]
    blocks: int
    """That the longest member is trained on, and one for a last correction of `sae.l0`."""
    tokens: int
    """That the model reads for them."""
    steps: int
    """Of the longest member."""
    judgements: int
    """How often members are judged, those that are most often."""
    sent_bytes: int
    """Of each block, between devices."""
    cache_bytes: int
    """Of all blocks in `data.cache`; positions that are not counted make it less."""
    checkpoint_bytes: int
    """Of one checkpoint; two are kept."""
    result_bytes: int
    """Of weights, sparsities, tables and curves."""

    @property
    def sent_per_step(self) -> float:
        """Bytes between devices, per step of the longest member."""
        return self.sent_bytes * self.blocks / self.steps

    def hours(self, device_flops: float) -> tuple[float, float]:
        """Of the slowest device at so many operations a second, with every step sparse and with every step dense."""
        least, most = (
            max(values) for values in zip(*((d.least_flops, d.most_flops) for d in self.devices), strict=True)
        )
        return least / device_flops / 3600, most / device_flops / 3600


def pass_cost(made: Pass) -> PassCost:
    """The cost of a pass on the devices that it was planned for."""
    group, first = made.group, made.group.members[0].config
    rows, positions = first.data.block_rows, first.data.block_rows * first.data.context
    blocks = blocks_needed([member.config for member in group.members], rows * counted_positions(first))
    forwards = ceil(rows / first.data.rows_per_forward)
    parts = [_rows(first, share) for share in shares(forwards, made.devices)]
    costs = [_device_cost(made, device, own, blocks) for device, own in enumerate(parts)]
    sent = sum(cost.received_bytes for cost in costs)
    return PassCost(
        devices=tuple(costs),
        blocks=blocks,
        tokens=blocks * positions,
        steps=max(member.schedule.total_steps for member in group.members),
        judgements=max(_judgements(member.config) for member in group.members),
        sent_bytes=sent,
        cache_bytes=blocks * block_bytes(group) // first.data.context * counted_positions(first),
        checkpoint_bytes=sum(map(checkpoint_bytes, group.members)),
        result_bytes=sum(map(result_bytes, group.members)),
    )


def checkpoint_bytes(member: Member) -> int:
    """Of a member in a checkpoint: its tensors, without a few numbers and the file's header."""
    frozen = member_numbers(member) - member_parameters(member)
    return STATE_BYTES * member_parameters(member) + FROZEN_BYTES * frozen + SILENT_BYTES * member.width


def result_bytes(member: Member) -> int:
    """Of what a member leaves: weights, the share of tokens that each latent fires on, and its curves."""
    numbers = member_numbers(member) + member.config.sae.saved_beside(member.width) + member.width
    lines = member.schedule.total_steps // member.log_every
    return NUMBER_BYTES * numbers + LINE_BYTES * lines


def counted_positions(config: MemberConfig) -> int:
    """Of a row without special tokens: BOS, or the first token where there is none, does not count."""
    return config.data.context - data_kind(config.data.kind).MODEL


def _rows(config: MemberConfig, forwards: range) -> int:
    """Rows of a block in these forward passes; the last pass may have fewer than the others."""
    start, stop = (
        min(end * config.data.rows_per_forward, config.data.block_rows) for end in (forwards.start, forwards.stop)
    )
    return stop - start


def _device_cost(made: Pass, device: int, rows: int, blocks: int) -> DeviceCost:
    """`rows` of each block are the device's to harvest."""
    group, members = made.group, [member for wave in made.at(device) for member in wave.members]
    config, models = group.members[0].config, facts_of_models(group)
    own = block_bytes(at(group, made.sites(device))) if members else 0
    budgets = [(member.config.training.tokens, member) for member in members]
    harvest = splicing = judging = received = 0.0
    if models:  # each device draws synthetic data for itself
        harvest = blocks * rows * config.data.context * harvest_flops(group, models)
        splicing = sum(tokens * splicing_flops(member, models[0]) for tokens, member in budgets)
        judging = _judging_flops(members, models) if members else 0.0
        of_others = (config.data.block_rows - rows) * counted_positions(config)
        received = own // (config.data.block_rows * config.data.context) * of_others
    beside = sum(m.schedule.total_steps * m.config.sae.step_flops(m.d_out, m.width) for m in members)
    encoder = sum(tokens * encoder_flops(member) for tokens, member in budgets)
    dense = sum(tokens * 3 * product_flops(member) for tokens, member in budgets)  # forth, and both ways back
    return DeviceCost(harvest, splicing, judging, encoder + beside, dense + beside, own, int(received))


def _judging_flops(members: Sequence[Member], models: Sequence[ModelFacts]) -> float:
    """Of all times that members are judged: each only as often as it is."""
    config, times, found = members[0].config, [_judgements(member.config) for member in members], 0.0
    tokens = ceil(config.evaluation.tokens / config.data.context) * config.data.context
    for before, now in pairwise([0, *sorted(set(times))]):
        judged = [member for member, own in zip(members, times, strict=True) if own >= now]
        found += (now - before) * tokens * judging_flops(judged, models)
    return found


def _judgements(config: MemberConfig) -> int:
    """How often a member is judged: at the end, and after each block in which `evaluation.every` says so, but for its
    last one."""
    every, batch = config.evaluation.every, config.training.batch_size
    if every is None:
        return 1
    steps = steps_in_block(config, config.data.block_rows * counted_positions(config))
    blocks = ceil(max(1, int(config.training.tokens) // batch) / steps) - 1
    return 1 + min(blocks * steps * batch // int(every), blocks)
