"""What a device holds at its fullest moment, from sizes alone. No torch.

A group passes through phases, and each holds the model, its members' state and what the phase adds; the peak is the
largest of them. `scripts/bench/memory.py` measures real runs phase by phase beside what is said here: after a change to
what a step or a judgement holds, the constants are set by its table.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sae_sweep.config.schema import MemberConfig
from sae_sweep.data.kinds import data_kind
from sae_sweep.host.machine import cores
from sae_sweep.kernels.facts import CACHE_BYTES
from sae_sweep.plan.constants import (
    CODE_ELEMENTS,
    COSINE_ELEMENTS,
    SAMPLE_ROWS,
    TILE_TOKENS,
    positions_together,
    rows_together,
)
from sae_sweep.plan.devices import on_gpu
from sae_sweep.plan.groups import BankPlan, Group
from sae_sweep.plan.members import Member
from sae_sweep.plan.sizes import (
    block_bytes,
    facts_of,
    facts_of_models,
    forward_positions,
    group_widths,
    member_numbers,
    member_parameters,
    model_bytes,
    number_bytes,
    state_bytes,
)

GRADIENT_BYTES = 8
"""Per trained number of the members that step together: the gradient, and what projecting and applying it makes."""
ROW_BYTES = 16
"""Per number of a batch [B, d], and of each member's reconstruction: inputs, output, error, gradient."""
FOLD_BYTES = 4
"""Per number of a member that is judged: its inference form is a copy."""
CODE_BYTES = 24
"""Per code of those a judge holds at a time."""
LOGIT_BYTES = 21
"""Per logit of the tile that each core holds: those of two passes, their log-softmax, the clean distribution."""
SPLICED_LOGIT_BYTES = 36
"""The same of a step that runs the model on from a site, where what autograd keeps is there too."""
TRIM_BYTES = 38
"""Per (token, latent) pair of the rows that the last correction of `sae.l0` sees together."""
SAMPLE_BYTES = 32
"""Per number of the inputs that scales and first parameters are found on: kept twice, and three times in float64."""
CONTRAST_BYTES = 16
"""Per pair of tokens of a batch, where each is told from the others: similarities, and both ways' softmax."""
COVARIANCE_BYTES = 48
"""Per number of a covariance where inputs are whitened: it, its eigenvectors, and what finding them takes."""
COSINE_BYTES = 8
"""Per cosine of those a judge holds at a time where true latents are known."""
LIBRARY_BYTES = 470_000_000
"""Of a process that has loaded torch and its company and compiled loops, in the host's memory."""
TEXT_BYTES = 180_000_000
"""Of a model's code, a tokenizer, and what tokenising a text takes, in the host's memory."""
CONTEXT_BYTES = 600_000_000
"""Of a GPU, that a process takes beside torch's tensors: its context with the code of kernels, and the workspaces of
cuBLAS. Assumed, not measured."""
ALLOCATOR_BYTES = {"cpu": 180_000_000, "cuda": 64_000_000}
"""What a memory allocator keeps of blocks that were freed; small beside anything that does not fit."""
HEAP_TENSOR = 2**25
"""Bytes below which glibc may take a tensor from its heap, which keeps the room of first parameters once copied."""
PROCESS_BYTES = 500_000_000
"""Of each process beside the first, where members are so small that one for each core steps them, before steps: the
heap that it has of the first one, and has to copy to use it."""


@dataclass(frozen=True)
class Peak:
    """What the device holds in one phase."""

    phase: str
    held: Mapping[str, int]
    """Bytes by what they are of."""

    @property
    def total(self) -> int:
        """Bytes that are held at the peak."""
        return sum(self.held.values())


def peak(group: Group, banks: Sequence[BankPlan], on_the_way: int = 0) -> Peak:
    """The fullest phase of a group of which these banks are on the device together."""
    return max(phases(group, banks, on_the_way), key=lambda one: one.total)


def phases(group: Group, banks: Sequence[BankPlan], on_the_way: int = 0) -> list[Peak]:
    """What the device holds in each phase of a group of which these banks are on the device together.

    `on_the_way` are bytes of activations that are being exchanged with other devices while a block is made.
    """
    first = group.members[0].config
    members = [member for bank in banks for member in bank.members]
    state = {"model": model_bytes(group), "members": sum(map(state_bytes, members))}
    state["allocator"] = ALLOCATOR_BYTES[_kind(group)]
    if on_gpu(first):
        state["context"] = CONTEXT_BYTES
    else:
        state["libraries"] = LIBRARY_BYTES
        state["allocator"] += sum(4 * member_numbers(m) for m in members if 4 * m.encoder_numbers < HEAP_TENSOR)
        if data_kind(first.data.kind).TOKENIZES:
            state["text"] = TEXT_BYTES
    block = {"block of activations": block_bytes(group)}
    making = {"model's forward pass": _forward_bytes(group), "exchange with other devices": on_the_way}
    ahead = {"next block": block_bytes(group), **making}
    if not reads_ahead(first):
        ahead = {}
    folds = sum(member_numbers(member) * FOLD_BYTES for member in members)
    judging = {"inference forms": folds, "held-out activations": _heldout_bytes(group, members)}
    judging["codes and logits"] = max(_code_bytes(group, members), _logit_bytes(group))
    if first.evaluation.every is not None or first.training.milestones is not None:
        judging |= block | ahead
    opening = {"sampled inputs": _sample_bytes(group), **making}
    found = [
        Peak("opening", state | block | opening),
        Peak("training", state | block | ahead | {"steps": _steps_bytes(group, banks)} | _processes(group, banks)),
        Peak("judging", state | judging),
    ]
    trimmed = [m for m in members if m.config.sae.corrected]
    if trimmed:
        kept = max(member_numbers(member) * FOLD_BYTES for member in trimmed)
        trim = TRIM_BYTES * max(rows_together(member.width) * member.width for member in trimmed)
        found.append(Peak("trimming", state | block | {"inference form": kept, "margins": trim}))
    return found


def reads_ahead(config: MemberConfig) -> bool:
    """Whether the next block may be made while one is trained on (`sae_sweep/activations/prefetch.py`)."""
    return on_gpu(config) or config.data.cache is not None


def _kind(group: Group) -> str:
    return "cuda" if on_gpu(group.members[0].config) else "cpu"


def _steps_bytes(group: Group, banks: Sequence[BankPlan]) -> int:
    """Of the steps that are under way together: one on a GPU, one on each core otherwise, the largest that meet."""
    chunks = sorted((_chunk_bytes(chunk) for bank in banks for chunk in bank.chunks()), reverse=True)
    return sum(chunks[: 1 if _kind(group) == "cuda" else _threads()]) + _suffix_bytes(group)


def _chunk_bytes(chunk: BankPlan) -> int:
    first, members = chunk.members[0], chunk.members
    tokens = first.config.training.batch_size
    pairs = tokens * sum(member.width for member in members)
    rows = tokens * (first.d + first.d_out * sum(member.config.sae.reconstructions for member in members))
    numbers = sum(map(member_parameters, members))
    beside = 4 * max(member.config.sae.step_numbers(member.d_out, member.width) for member in members)
    if first.config.sae.pairs:
        beside += CONTRAST_BYTES * tokens**2 + ROW_BYTES * tokens * first.d
    return pairs * first.config.sae.pair_bytes + rows * ROW_BYTES + numbers * GRADIENT_BYTES + beside


def _threads() -> int:
    """How many torch will take."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else cores()


def _processes(group: Group, banks: Sequence[BankPlan]) -> dict[str, int]:
    """What processes beside this one take, where there are any (`training/devices/lane_processes.py`): a block each."""
    others = min(_threads(), sum(len(bank.chunks()) for bank in banks)) - 1
    members = [member for bank in banks for member in bank.members]
    small = all(4 * member.encoder_numbers <= CACHE_BYTES and member.config.training.local for member in members)
    limited = members[0].config.launcher.memory_gb is not None
    if others < 1 or not small or limited or _kind(group) == "cuda":
        return {}
    return {"block of other processes": block_bytes(group), "other processes": others * PROCESS_BYTES}


def _suffix_bytes(group: Group) -> int:
    """Of a suffix pass that is differentiated; banks take turns. Inside each block after the site: as a forward pass,
    but of all blocks at once, with a gated MLP's products."""
    facts = facts_of(group)
    if facts is None or not group.spliced:
        return 0
    inside = 8 * facts.d_model + 6 * facts.n_heads * facts.d_head + 5 * facts.d_mlp
    blocks = facts.n_layers - min(member.site.layer or 0 for member in group.members)
    logits = SPLICED_LOGIT_BYTES * _tile(group, facts.vocab_size)[0]
    return forward_positions(group) * blocks * inside * number_bytes(group) + logits


def _tile(group: Group, vocabulary: int) -> tuple[int, int]:
    """Logits of a tile, and how many tiles there may be at a time: one for each core."""
    kind, positions = _kind(group), forward_positions(group)
    tokens = min(vocabulary, TILE_TOKENS[kind])
    together = min(positions, positions_together(kind, tokens, whole=tokens == vocabulary))
    return together * tokens, 1 if kind == "cuda" else min(_threads(), -(-positions // together))


def _heldout_bytes(group: Group, members: Sequence[Member]) -> int:
    """Of a batch of held-out rows: activations, and final hidden states of every pass that is judged."""
    models = facts_of_models(group)
    if not models:
        return 0
    passes = sum(len(member.site.spliced) for member in members) + 2 * len(group.hooks) + 3 + len(models)
    watched = 2 * len({hook for member in members for hook in member.watched})  # clean ones, and those of a pass
    numbers = 2 * sum(group_widths(group)) + (passes + watched) * max(facts.d_model for facts in models)
    return forward_positions(group) * numbers * number_bytes(group)


def _code_bytes(group: Group, members: Sequence[Member]) -> int:
    """Of the codes of a judge, or what it compares known latents with."""
    positions, most = forward_positions(group), CODE_ELEMENTS[_kind(group)]
    codes = max(min(positions, max(1, most // member.width)) * member.width for member in members)
    return max(CODE_BYTES * codes, COSINE_BYTES * COSINE_ELEMENTS if facts_of(group) is None else 0)


def _logit_bytes(group: Group) -> int:
    tiles = [_tile(group, facts.vocab_size) for facts in facts_of_models(group)]
    return max((LOGIT_BYTES * logits * count for logits, count in tiles), default=0)


def _forward_bytes(group: Group) -> int:
    """Of the model's forward pass at its fullest: hidden states, the inside of one MLP, what is taken out of it. Two
    models take turns, and what was taken out of the first is there still."""
    models = facts_of_models(group)
    if not models:
        return 0
    inside = max(4 * facts.d_model + 4 * facts.n_heads * facts.d_head + 4 * facts.d_mlp for facts in models)
    return forward_positions(group) * (inside + sum(group_widths(group))) * number_bytes(group)


def _sample_bytes(group: Group) -> int:
    data, members = group.members[0].config.data, group.members
    squares = max(max(member.widths.values()) ** 2 * member.config.sae.whitens for member in members)
    rows = min(SAMPLE_ROWS, data.block_rows * data.context)
    return SAMPLE_BYTES * rows * sum(group_widths(group)) + COVARIANCE_BYTES * squares
