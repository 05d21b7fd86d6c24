"""Floating-point operations of the language model and of SAEs: what training and judging members takes. No torch."""

from collections.abc import Iterable

from sae_sweep.model.facts import ModelFacts
from sae_sweep.model.sites import Site
from sae_sweep.plan.groups import Group
from sae_sweep.plan.members import Member
from sae_sweep.plan.sizes import block_parameters


def harvest_flops(group: Group, facts: ModelFacts) -> float:
    """Per token of a forward pass: up to the last site that members read or reconstruct, or, where an objective needs
    what comes after, to the end. Logits are not made."""
    context = group.members[0].config.data.context
    places = [place for bank in group.banks for place in bank.site.places]
    sites = [site for place in places for site in (place, place.written)]
    last = facts.n_layers if group.spliced else max(_blocks_until(site, facts) for site in sites)
    return last * _block_flops(facts, context)


def splicing_flops(member: Member, facts: ModelFacts) -> float:
    """Per training token, of an objective that is not local: a pass of the blocks after the site and the logits, forth
    and back, and the clean logits. Back costs as much as forth: the model's weights have no gradients."""
    if member.config.training.local:
        return 0.0
    return 2 * _suffix_flops(member.site, facts, member.config.data.context) + 3 * _logit_flops(facts)


def judging_flops(members: Iterable[Member], facts: ModelFacts) -> float:
    """Per held-out token: one clean pass, two ablations at each site that is reconstructed, a spliced pass at each of
    a member's, the logits of all of them, and the members' inference forms. Layers are spliced together, from the first
    one on."""
    members = list(members)
    context = members[0].config.data.context
    of_members = [place.written for member in members for place in member.site.spliced]
    ablated = {site.hook: site for site in of_members}.values()
    passes = [*of_members, *ablated, *ablated]
    model = facts.n_layers * _block_flops(facts, context) + sum(_suffix_flops(s, facts, context) for s in passes)
    return model + (1 + len(passes)) * _logit_flops(facts) + sum(map(product_flops, members))


def product_flops(member: Member) -> float:
    """Per token, of one dense encoder product and one dense decoder product."""
    return encoder_flops(member) + 2.0 * member.decoder_numbers


def encoder_flops(member: Member) -> float:
    """Per token, of one dense encoder product, two where the token before is read too, and of whitening what they are
    given."""
    sae = member.config.sae
    return 2.0 * (member.encoder_numbers + member.d**2 * sae.whitens) * (1 + sae.pairs)


def _suffix_flops(site: Site, facts: ModelFacts, context: int) -> float:
    """Per token, of the blocks that run after an activation is replaced: whole ones, where it is inside of one."""
    before = 0 if site.layer is None else site.layer + (site.kind in ("resid_post", "mlp_out"))
    return (facts.n_layers - before) * _block_flops(facts, context)


def _blocks_until(site: Site, facts: ModelFacts) -> int:
    return facts.n_layers if site.layer is None else site.layer + (site.kind != "resid_pre")


def _block_flops(facts: ModelFacts, context: int) -> float:
    """Per token, of one block: its matrices, and attention over whole rows."""
    return 2.0 * block_parameters(facts) + 4.0 * context * facts.n_heads * facts.d_head


def _logit_flops(facts: ModelFacts) -> float:
    return 2.0 * facts.d_model * facts.vocab_size
