"""An SAE for activations of another mean and size than those it was trained on, in closed form."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.saes.inference import InferenceSae


@dataclass(frozen=True)
class Size:
    """What activations at a site are like."""

    mean_D: Tensor
    spread: float
    """The root of their mean squared distance from the mean."""

    @classmethod
    def of(cls, kept: Kept, name: str, block: Block | None, hook: str) -> "Size":
        """That of a block, which may be None where it is kept."""

        def made() -> Tensor:
            assert block is not None
            found = site_statistics(block, [hook])[hook]
            return torch.cat([found.mean.cpu(), torch.tensor([found.variance**0.5], dtype=torch.float64)])

        both = kept.once(f"size/{name}", made)
        return cls(both[:-1], both[-1].item())


def rescaled(sae: InferenceSae, own: Size, there: Size) -> InferenceSae:
    """The same SAE for activations of another size: what it reads is given its own mean and spread, and what it gives
    is given theirs, rows of a lookup too. Codes are those of its own unit. Decoder rows lose their unit norm."""
    scale = own.spread / max(there.spread, 1e-30)
    moved_D = (there.mean_D - own.mean_D / scale).to(sae.tensors["W_dec"])
    made = sae.plain().reading(scale, moved_D)
    tensors = {"W_dec": made.tensors["W_dec"] / scale, "b_dec": made.tensors["b_dec"] / scale + moved_D}
    lookup = made.lookup and replace(made.lookup, rows_VD=made.lookup.rows_VD / scale)
    return replace(made, tensors={**made.tensors, **tensors}, lookup=lookup)
