"""How well a dictionary recovers directions that are known, as the mean of maximum cosine similarities (MMCS).

MMCS is not symmetric: each row of the first matrix looks for its nearest in the second. From the true latents to the
learned ones it asks what was found; the other way round, whether what was found is true.
"""

import torch
from torch import Tensor

from sae_sweep.plan.constants import COSINE_ELEMENTS


def mmcs(from_FD: Tensor, to_GD: Tensor) -> float | None:
    """Mean over the rows of the first matrix of the largest cosine with a row of the second.

    None where either has no row.
    """
    return _mean(best_cosines(from_FD, to_GD))


def best_cosines(from_FD: Tensor, to_GD: Tensor) -> Tensor:
    """[F] float64: each row's largest cosine with a row of the second matrix; empty where that has none.

    A row of zeros has cosine 0 with everything.
    """
    if len(to_GD) == 0:
        return torch.empty(0, dtype=torch.float64, device=from_FD.device)
    to_GD = _unit(to_GD)
    step = max(1, COSINE_ELEMENTS // len(to_GD))
    return torch.cat([(_unit(part_bD) @ to_GD.T).amax(1) for part_bD in torch.split(from_FD, step)])


def recovery_metrics(
    decoder_FD: Tensor, alive_F: Tensor, truth_GD: Tensor, frequent_G: Tensor
) -> dict[str, float | None]:
    """MMCS of true and alive learned latents, both ways, and of the true latents that were frequent in training.

    `alive_F` and `frequent_G` are masks. None where there is none to take the mean over, or nothing to compare with.
    """
    alive_AD = decoder_FD[alive_F]
    found_G = best_cosines(truth_GD, alive_AD)
    frequent = found_G[frequent_G] if len(found_G) else found_G
    return {
        "mmcs_truth": _mean(found_G),
        "mmcs_truth_frequent": _mean(frequent),
        "mmcs_latents": mmcs(alive_AD, truth_GD),
    }


def _unit(rows_FD: Tensor) -> Tensor:
    rows_FD = rows_FD.double()
    norms_F = rows_FD.norm(dim=1, keepdim=True)
    return torch.where(norms_F > 0, rows_FD / norms_F, 0.0)


def _mean(values: Tensor) -> float | None:
    return values.mean().item() if len(values) else None
