"""What a group will cost, from sizes alone: memory and floating-point operations. No torch."""

from dataclasses import dataclass

from sae_sweep.model.facts import ModelFacts
from sae_sweep.model.sites import Site
from sae_sweep.plan.members import Group
from sae_sweep.plan.memory import Peak, peak
from sae_sweep.plan.sizes import block_bytes, block_parameters, facts_of, model_bytes, state_bytes


@dataclass(frozen=True)
class Estimate:
    """Bytes and operations of one group; the operations are of the whole run. Toy data has no model to count."""

    peak: Peak
    """The fullest phase, with all members on the device."""
    state_bytes: int
    """The members' weights and moments."""
    model_bytes: int
    block_bytes: int
    """A block's activations."""
    encoder_flops: float
    """The members' encoder products, forward: the least a sparse step can cost."""
    dense_flops: float
    """What the members' steps would cost if every product were dense."""
    model_flops: float
    """One pass of the model over the longest member's tokens, up to the last site or, where an objective needs it,
    the end; and such members' own passes from their sites on, forth and back."""


def estimate(group: Group) -> Estimate:
    """The estimate for one group."""
    facts = facts_of(group)
    products = sum(member.config.training.tokens * member.d * member.width for member in group.members)
    tokens = max(member.config.training.tokens for member in group.members)
    return Estimate(
        peak=peak(group, group.banks),
        state_bytes=sum(state_bytes(member) for member in group.members),
        model_bytes=model_bytes(group),
        block_bytes=block_bytes(group),
        encoder_flops=2.0 * products,
        dense_flops=12.0 * products,
        model_flops=_model_flops(group, facts, tokens) if facts else 0,
    )


def _model_flops(group: Group, facts: ModelFacts, tokens: float) -> float:
    context = group.members[0].config.data.context
    whole = flops_per_token(None, facts, context)
    sites = [site for bank in group.banks for site in (bank.site.written, *bank.site.beside)]
    shared = whole if group.spliced else max(flops_per_token(site, facts, context) for site in sites)
    own = 0.0
    for member in group.members:
        if not member.config.training.local:  # back costs as much as forth: the model's weights have no gradients
            suffix = whole - flops_per_token(member.site, facts, context)
            heads = 3 * 2.0 * facts.d_model * facts.vocab_size
            own += member.config.training.tokens * (2 * suffix + heads)
    return tokens * shared + own


def flops_per_token(site: Site | None, facts: ModelFacts, context: int) -> float:
    """Of one token's forward pass through the blocks that the site needs; without one through all, but no logits."""
    blocks = facts.n_layers if site is None or site.layer is None else site.layer + (site.kind != "resid_pre")
    return blocks * (2.0 * block_parameters(facts) + 4.0 * context * facts.n_heads * facts.d_head)
