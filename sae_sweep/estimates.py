"""What a group will cost, from sizes alone: memory and floating-point operations. No torch."""

from dataclasses import dataclass
from math import prod

from sae_sweep.model.facts import ModelFacts, model_facts
from sae_sweep.model.sites import Site
from sae_sweep.plan import Group, Member

MEMBER_BYTES = 16
"""Per parameter of a member: fp32 weight, gradient and Adam's two moments."""
FROZEN_BYTES = 4
DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Estimate:
    """Bytes and operations of one group; the operations are of the whole run. Toy data has no model to count."""

    member_bytes: int
    model_bytes: int
    block_bytes: int
    encoder_flops: float
    """The members' encoder products, forward: the least a sparse step can cost."""
    dense_flops: float
    """What the members' steps would cost if every product were dense."""
    model_flops: float
    """One pass of the model, up to the last site, over the longest member's tokens."""


def estimate(group: Group) -> Estimate:
    """The estimate for one group."""
    first = group.members[0].config
    facts = model_facts(first.model) if first.data.toy is None else None
    bytes_each = DTYPE_BYTES[first.model.dtype]
    width_at = {member.site.hook: member.d for member in group.members}
    products = sum(member.config.training.tokens * member.d * member.width for member in group.members)
    tokens = max(member.config.training.tokens for member in group.members)
    return Estimate(
        member_bytes=sum(member_bytes(member) for member in group.members),
        model_bytes=model_parameters(facts) * bytes_each if facts else 0,
        block_bytes=first.data.block_rows * first.data.context * sum(width_at.values()) * bytes_each,
        encoder_flops=2.0 * products,
        dense_flops=12.0 * products,
        model_flops=tokens * max(_flops_to(bank.site, facts, first.data.context) for bank in group.banks)
        if facts
        else 0,
    )


def member_bytes(member: Member) -> int:
    """Of one member's state on the device; a frozen lookup has neither gradient nor moments."""
    frozen = _lookup_numbers(member) if member.config.sae.lookup == "frozen" else 0
    return member_parameters(member) * MEMBER_BYTES + frozen * FROZEN_BYTES


def member_parameters(member: Member) -> int:
    """Trained numbers of one member, a learned lookup among them."""
    own = sum(prod(shape) for shape in member.config.sae.parameters(member.d, member.width).values())
    return own + (_lookup_numbers(member) if member.config.sae.lookup == "learned" else 0)


def bytes_text(number: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _lookup_numbers(member: Member) -> int:
    return model_facts(member.config.model).vocab_size * member.d


def model_parameters(facts: ModelFacts) -> int:
    """Near enough: one embedding, and MLPs counted as gated ones (three matrices)."""
    return facts.vocab_size * facts.d_model + facts.n_layers * _block_parameters(facts)


def _block_parameters(facts: ModelFacts) -> int:
    return 4 * facts.d_model * facts.n_heads * facts.d_head + 3 * facts.d_model * facts.d_mlp


def _flops_to(site: Site, facts: ModelFacts, context: int) -> float:
    """Of one token's forward pass through the blocks that the site needs."""
    blocks = facts.n_layers if site.layer is None else site.layer + (site.kind != "resid_pre")
    return blocks * (2.0 * _block_parameters(facts) + 4.0 * context * facts.n_heads * facts.d_head)
