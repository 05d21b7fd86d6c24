"""Floating-point operations of the language model and of SAEs: what training and judging members takes. No torch."""

from collections.abc import Iterable, Sequence

from sae_sweep.model.facts import ModelFacts
from sae_sweep.model.sites import Site, model_of
from sae_sweep.plan.groups import Group
from sae_sweep.plan.members import Member
from sae_sweep.plan.sizes import block_parameters


def harvest_flops(group: Group, models: Sequence[ModelFacts]) -> float:
    """Per token of a forward pass of each model: up to the last site that members read or reconstruct, or, where an
    objective needs what comes after, to the end. Logits are not made."""
    context, total = group.members[0].config.data.context, 0.0
    places = [place for bank in group.banks for place in bank.site.places]
    sites = [site for place in places for site in (place, place.written)]
    for number, facts in enumerate(models):
        own = [_blocks_until(site, facts) for site in sites if model_of(site.hook) == number]
        total += (facts.n_layers if group.spliced else max(own)) * _block_flops(facts, context)
    return total


def splicing_flops(member: Member, facts: ModelFacts) -> float:
    """Per training token, of an objective that is not local: a pass of the blocks after the site and the logits, forth
    and back, and the clean logits. Back costs as much as forth: the model's weights have no gradients."""
    if member.config.training.local:
        return 0.0
    return 2 * suffix_flops(member.site, facts, member.config.data.context) + 3 * logit_flops(facts)


def judging_flops(members: Iterable[Member], models: Sequence[ModelFacts]) -> float:
    """Per held-out token: one clean pass of each model, two ablations at each site that is reconstructed, a spliced
    pass at each of a member's, the logits of all of them, and the members' inference forms. Layers are spliced
    together, from the first one on."""
    members = list(members)
    context = members[0].config.data.context
    of_members = [place.written for member in members for place in member.site.spliced]
    ablated = {site.hook: site for site in of_members}.values()
    passes = [*of_members, *ablated, *ablated]
    total = sum(map(product_flops, members))
    for number, facts in enumerate(models):
        own = [suffix_flops(site, facts, context) for site in passes if model_of(site.hook) == number]
        total += clean_flops(facts, context) + sum(own) + (1 + len(own)) * logit_flops(facts)
    return total


def product_flops(member: Member) -> float:
    """Per token, of one dense encoder product and one dense decoder product."""
    return encoder_flops(member) + 2.0 * member.decoder_numbers


def encoder_flops(member: Member) -> float:
    """Per token, of one dense encoder product, two where the token before is read too, and of whitening what they are
    given."""
    sae = member.config.sae
    return 2.0 * (member.encoder_numbers + member.d**2 * sae.whitens) * (1 + sae.pairs)


def suffix_flops(site: Site, facts: ModelFacts, context: int) -> float:
    """Per token, of the blocks that run after an activation is replaced: whole ones, where it is inside of one."""
    before = 0 if site.layer is None else site.layer + (site.kind in ("resid_post", "mlp_out"))
    return (facts.n_layers - before) * _block_flops(facts, context)


def _blocks_until(site: Site, facts: ModelFacts) -> int:
    return facts.n_layers if site.layer is None else site.layer + (site.kind != "resid_pre")


def _block_flops(facts: ModelFacts, context: int) -> float:
    """Per token, of one block: its matrices, and attention over whole rows."""
    return 2.0 * block_parameters(facts) + 4.0 * context * facts.n_heads * facts.d_head


def clean_flops(facts: ModelFacts, context: int) -> float:
    """Per token, of all blocks."""
    return facts.n_layers * _block_flops(facts, context)


def logit_flops(facts: ModelFacts) -> float:
    """Per token, of the logits of one pass."""
    return 2.0 * facts.d_model * facts.vocab_size
