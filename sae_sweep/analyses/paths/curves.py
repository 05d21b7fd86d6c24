"""Ways between two activations, and how far what is made of them has come on the way."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Curve:
    """Of N ways the share of the distance to what is made at the end that is covered, at S + 1 equal steps."""

    share_SN: Tensor
    """[S + 1, N]: 0 at the beginning, 1 at the end."""

    @classmethod
    def of(cls, made: list[Tensor]) -> "Curve":
        """Of what is made at each step [N, d]; where the end is as the beginning all is 0."""
        distance_SN = torch.stack([(each_ND - made[0]).double().norm(dim=1) for each_ND in made])
        end_N = distance_SN[-1]
        return cls(torch.where(end_N > 0, distance_SN / end_N, 0.0))

    @property
    def moves_N(self) -> Tensor:
        """[N] bool: the ways whose end is not as their beginning."""
        return self.share_SN[-1] > 0

    def reaches(self, share: float) -> Tensor:
        """[N]: where on the way this share is first passed, between steps as on a line; 1 where it never is."""
        passed_SN = self.share_SN > share
        after_N = passed_SN.int().argmax(0).clamp(min=1)
        low_N, high_N = (self.share_SN.gather(0, (after_N - back)[None])[0] for back in (1, 0))
        inside_N = (share - low_N) / torch.where(high_N > low_N, high_N - low_N, 1.0)
        found_N = (after_N - 1 + inside_N) / (len(self.share_SN) - 1)
        return torch.where(passed_SN.any(0), found_N, 1.0)

    def at(self, place_N: Tensor) -> Tensor:
        """[N]: the share at a place of each way, between steps as on a line."""
        steps = len(self.share_SN) - 1
        before_N = (place_N * steps).floor().clamp(0, steps - 1).long()
        low_N, high_N = (self.share_SN.gather(0, (before_N + more)[None])[0] for more in (0, 1))
        return low_N + (high_N - low_N) * (place_N * steps - before_N)
