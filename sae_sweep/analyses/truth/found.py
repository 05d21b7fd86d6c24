"""What one SAE has of the true latents: a learned one for each, and how well it tells when that is active."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.analyses.matches.assignment import EXACT, partners
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.evaluation.recovery import best_cosines
from sae_sweep.kernels.entries import Entries
from sae_sweep.kernels.sparse import bag_of_each


@dataclass(frozen=True)
class Matched:
    """True latents with the learned ones that are most like them, each given once (Hungarian)."""

    best_G: Tensor
    """The largest cosine of each true latent with a learned one, which several may have."""
    partner_G: Tensor
    """The learned latent that each is given, by its number in the dictionary; -1 where there are too few."""
    cosine_G: Tensor
    """The absolute cosine of the two; 0 where there is none."""

    @classmethod
    def kept(cls, kept: Kept, name: str, truth_GD: Tensor, decoder_FD: Tensor, alive_F: Tensor) -> "Matched":
        """As `of`, but made once."""

        def made() -> Tensor:
            one = cls.of(truth_GD, decoder_FD, alive_F)
            return torch.stack([one.best_G, one.partner_G.double(), one.cosine_G])

        best_G, partner_G, cosine_G = kept.once(name, made)
        return cls(best_G, partner_G.long(), cosine_G)

    @classmethod
    def of(cls, truth_GD: Tensor, decoder_FD: Tensor, alive_F: Tensor) -> "Matched":
        """Of the latents that are alive. Where there are more than an exact assignment is made of, each true latent
        has its nearest, whoever else has it."""
        place_A = alive_F.nonzero().squeeze(1)
        rows_AD = decoder_FD[place_A].double()
        best_G = best_cosines(truth_GD, rows_AD) if len(rows_AD) else torch.zeros(len(truth_GD), dtype=torch.float64)
        if not len(rows_AD):
            return cls(best_G, torch.full((len(truth_GD),), -1), best_G)
        similar_GA = (_unit(truth_GD) @ _unit(rows_AD).T).abs()
        exact = max(similar_GA.shape) <= EXACT
        partner_G = partners(similar_GA) if exact else similar_GA.argmax(1).cpu()
        has_G = partner_G >= 0
        cosine_G = torch.where(has_G, similar_GA.cpu().gather(1, partner_G.clamp(min=0)[:, None])[:, 0], 0.0)
        return cls(best_G.cpu(), torch.where(has_G, place_A.cpu()[partner_G.clamp(min=0)], -1), cosine_G)


def _unit(rows_FD: Tensor) -> Tensor:
    rows_FD = rows_FD.double()
    return rows_FD / rows_FD.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


class Firing:
    """How often true latents are active, their partners fire, and both; kept, over rows that come some at a time."""

    def __init__(self, kept: Kept, name: str, partner_G: Tensor, width: int, device: torch.device) -> None:
        """`width` is how many latents the SAE has."""
        self._count_4G = kept.zeros(f"firing/{name}", 4, len(partner_G), device=device)
        self._owner_F = torch.full((width,), -1, device=device)
        has_G = partner_G >= 0
        self._owner_F[partner_G[has_G].to(device)] = has_G.nonzero().squeeze(1).to(device)

    def add(self, codes: Entries, active_bG: Tensor) -> None:
        """Take in an SAE's codes on some rows, and which true latents are active in them."""
        row_N = bag_of_each(codes.offsets, len(codes.value_N)).long()
        owner_N = self._owner_F[codes.column_N.long()]
        owned = owner_N >= 0
        row_N, owner_N = row_N[owned], owner_N[owned]
        other_N = (row_N + len(active_bG) // 2) % len(active_bG)  # the control: the same codes at other rows
        self._count_4G[0] += active_bG.sum(0)
        for place, value_N in enumerate(
            (torch.ones_like(row_N), active_bG[row_N, owner_N], active_bG[other_N, owner_N])
        ):
            self._count_4G[1 + place].index_add_(0, owner_N, value_N.double())

    @property
    def active_G(self) -> Tensor:
        """On how many rows each true latent is active."""
        return self._count_4G[0].cpu()

    @property
    def f1_G(self) -> Tensor:
        """Of each true latent's partner, as a guess that it is active."""
        return self._f1(2)

    @property
    def chance_G(self) -> Tensor:
        """The same at other rows."""
        return self._f1(3)

    def _f1(self, both: int) -> Tensor:
        active_G, fires_G, both_G = self._count_4G[0].cpu(), self._count_4G[1].cpu(), self._count_4G[both].cpu()
        return 2 * both_G / (active_G + fires_G).clamp(min=1)
