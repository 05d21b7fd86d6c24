"""How alike two dictionaries are: the mean best cosine of latents, each way.

One way alone can mislead: every latent of a small dictionary may have its like in a large one, and not the reverse.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

COSINE_ELEMENTS = 2**24
"""Cosines held at a time."""


@torch.no_grad()
def mean_best_cosines(first_FD: Tensor, second_FD: Tensor) -> tuple[float, float]:
    """The mean over the first's rows of their best cosine with a row of the second, and the same of the second's rows.

    Rows are latents' directions (of decoder or encoder) of any norm; leave dead latents out before. Raises ValueError
    where either has none, or their widths differ.
    """
    if not len(first_FD) or not len(second_FD) or first_FD.shape[1] != second_FD.shape[1]:
        raise ValueError(f"nothing to compare: rows of shapes {tuple(first_FD.shape)} and {tuple(second_FD.shape)}")
    rows_FD, others_FD = normalize(first_FD.double()), normalize(second_FD.double())
    best_F, best_of_others_F = [], torch.full((len(others_FD),), -1.0, dtype=torch.float64, device=rows_FD.device)
    for part_FD in rows_FD.split(max(1, COSINE_ELEMENTS // len(others_FD))):
        cosine_FF = part_FD @ others_FD.T
        best_F.append(cosine_FF.amax(1))
        best_of_others_F = torch.maximum(best_of_others_F, cosine_FF.amax(0))
    return float(torch.cat(best_F).mean()), float(best_of_others_F.mean())
