"""Numbers and bytes of what a run holds for as long as it goes: members, a block, the model. No torch."""

from math import prod

from sae_sweep.data.kinds import data_kind
from sae_sweep.model.device_map import blocks_here
from sae_sweep.model.facts import ModelFacts, model_facts
from sae_sweep.model.quantised import BYTES
from sae_sweep.model.second import models_of
from sae_sweep.model.sites import parse_hook, site_width
from sae_sweep.plan.constants import PINNED_ROUNDED_MB
from sae_sweep.plan.devices import gpu_count, on_gpu
from sae_sweep.plan.groups import Group
from sae_sweep.plan.members import Member

STATE_BYTES = 12
"""Per trained number of a member: fp32 weight and Adam's two moments. Gradients are a step's."""
FROZEN_BYTES = 4
"""Per number that is not trained."""
DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def member_parameters(member: Member) -> int:
    """Trained numbers of one member, a learned lookup among them."""
    own = sum(prod(shape) for shape in member.parameters.values())
    return own + (lookup_numbers(member) if member.config.sae.lookup == "learned" else 0)


def member_numbers(member: Member) -> int:
    """Numbers of one member, trained or not."""
    return member_parameters(member) + (lookup_numbers(member) if member.config.sae.lookup == "frozen" else 0)


def lookup_numbers(member: Member) -> int:
    """Of a row of the inputs' width per token of the vocabulary."""
    return model_facts(member.config.model).vocab_size * member.d


def state_bytes(member: Member) -> int:
    """Of one member's state; a frozen lookup has no moments."""
    frozen = lookup_numbers(member) if member.config.sae.lookup == "frozen" else 0
    return member_parameters(member) * STATE_BYTES + frozen * FROZEN_BYTES


def pinned_bytes(number: int) -> int:
    """Of the host's memory, that a pinned buffer of so many bytes takes (`training/devices/flat.py`)."""
    return number if number > PINNED_ROUNDED_MB * 2**20 else 1 << (number - 1).bit_length()


def block_bytes(group: Group) -> int:
    """Of a block's activations, where every position counts."""
    data = group.members[0].config.data
    return data.block_rows * data.context * (sum(group_widths(group)) + _sequence_width(group)) * number_bytes(group)


def _sequence_width(group: Group) -> int:
    """Numbers per position of what whole passes leave: each site's activations and what its suffix passes begin with,
    and final hidden states."""
    facts = facts_of(group)
    if facts is None or not group.spliced:
        return 0
    widths = [site_width(parse_hook(hook), facts) or facts.d_model for hook in {*group.hooks, *group.spliced}]
    return sum(widths) + 2 * len(group.hooks) * facts.d_model + facts.d_model


def group_widths(group: Group) -> list[int]:
    """Numbers per position at each site."""
    widths: dict[str, int] = {}
    for member in group.members:
        widths |= member.widths
    return list(widths.values())


def forward_positions(group: Group) -> int:
    """Of one forward pass of the model."""
    data = group.members[0].config.data
    return data.rows_per_forward * data.context


def model_bytes(group: Group) -> int:
    """Of what the members' device has of the model, or of both that read the tokens; synthetic data has none. Near
    enough: one embedding, and MLPs counted as gated ones (three matrices)."""
    config = group.members[0].config
    gpus, found = gpu_count() if on_gpu(config) else 1, 0.0
    for facts in facts_of_models(group):
        found += facts.vocab_size * facts.d_model * number_bytes(group)
        held = BYTES[config.model.quantize] if config.model.quantize else number_bytes(group)
        found += blocks_here(config.model, facts.n_layers, gpus) * block_parameters(facts) * held
    return round(found)


def block_parameters(facts: ModelFacts) -> int:
    """Of one block of the model."""
    return 4 * facts.d_model * facts.n_heads * facts.d_head + 3 * facts.d_model * facts.d_mlp


def number_bytes(group: Group) -> int:
    """Bytes of a number of the model."""
    return DTYPE_BYTES[group.members[0].config.model.dtype]


def facts_of(group: Group) -> ModelFacts | None:
    """Of the group's model, the first of two; synthetic data has none."""
    return next(iter(facts_of_models(group)), None)


def facts_of_models(group: Group) -> list[ModelFacts]:
    """Of every model that reads the group's tokens; synthetic data has none."""
    config = group.members[0].config
    return [*map(model_facts, models_of(config))] if data_kind(config.data.kind).MODEL else []


def bytes_text(number: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:  # else three digits make 1e+03 of it
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
