"""What a member begins from: parameters drawn anew, or those of a finished member (`init_from`)."""

from pathlib import Path

import torch
from torch import Tensor

from sae_sweep.errors import ConfigError
from sae_sweep.interop import load_sae
from sae_sweep.plan.members import Member
from sae_sweep.saes.bank import LOOKUP, SKIP
from sae_sweep.saes.base import Parameters, SaeMaths
from sae_sweep.saes.inference import Units
from sae_sweep.saes.initial import Start
from sae_sweep.saes.layered_start import first_parameters


def beginning(
    maths: SaeMaths, member: Member, start: Start, units: Units, unigrams_VD: Tensor | None
) -> tuple[Parameters, Parameters]:
    """A member's first parameters and buffers; a lookup table is among the one or the other. A skip starts at 0
    (Paulo et al. 2025).

    `units` are those of its inputs; the unigrams, in them, are needed with a lookup. Raises ConfigError where the
    member that it is to begin from cannot be read.
    """
    sae, generator = member.config.sae, torch.Generator().manual_seed(member.config.seed)
    if member.config.init_from is not None:
        return _continued(maths, member, member.config.init_from, units)
    parameters, buffers = first_parameters(maths, sae, start, member.width, generator), maths.buffers(sae)
    if sae.skip:
        parameters[SKIP] = torch.zeros(member.d_out, member.d)
    if sae.lookup != "none":
        assert unigrams_VD is not None
        table_VD = sae.lookup_scale * (unigrams_VD - parameters["b_dec"])
        (parameters if sae.lookup == "learned" else buffers)[LOOKUP] = table_VD
    return parameters, buffers


def _continued(maths: SaeMaths, member: Member, origin: str, units: Units) -> tuple[Parameters, Parameters]:
    """The parameters and buffers of an autoencoder that begins from another."""
    assert isinstance(units.scale, float), "one site"
    sae = member.config.sae
    try:
        saved = load_sae(Path(origin).expanduser())
    except ValueError as error:
        raise ConfigError(f"init_from={origin}: {error}") from error
    if units.mean_D is not None:
        saved = saved.about(-units.mean_D.to(saved.tensors["b_dec"]).cpu())
    parameters, buffers = maths.unfold(saved, units.scale), maths.buffers(sae)
    if saved.lookup is not None:
        (parameters if sae.lookup == "learned" else buffers)[LOOKUP] = saved.lookup.rows_VD * units.scale
    return parameters, buffers
