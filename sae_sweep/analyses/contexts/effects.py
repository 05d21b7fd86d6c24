"""What a latent's decoder row does to the next token, and which rows it is near."""

from typing import Any

import torch
from torch import Tensor

from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.model.language_model import LanguageModel

Weighted = list[tuple[int, float]]
"""Ids with numbers, the largest first."""


def logit_effects(model: LanguageModel, row_D: Tensor, n: int) -> tuple[Weighted, Weighted] | None:
    """The tokens whose logits a decoder row raises and lowers most, by how much for an activation of 1; the final norm
    is left out. None where the unembedding reads another width."""
    module: Any = model.module  # of transformers, whose methods torch's type of a module does not have
    head = module.get_output_embeddings()
    if head is None or head.weight.shape[1] != len(row_D):
        return None
    effect_V = head.weight.detach() @ row_D.to(head.weight)
    return _first(effect_V, n, largest=True), _first(effect_V, n, largest=False)


def neighbours(one: SplicedSae, latents_L: Tensor, n: int) -> list[Weighted]:
    """Of each latent the others whose decoder rows are nearest, with their cosines."""
    rows_FD = torch.nn.functional.normalize(one.sae.tensors["W_dec"].float(), dim=1)
    cosine_LF = rows_FD[latents_L.to(rows_FD.device)] @ rows_FD.T
    cosine_LF[torch.arange(len(latents_L)), latents_L.to(rows_FD.device)] = -torch.inf
    return [_first(each_F, min(n, len(each_F) - 1), largest=True) for each_F in cosine_LF]


def _first(values: Tensor, n: int, largest: bool) -> Weighted:
    found, ids = values.topk(min(n, len(values)), largest=largest)
    return list(zip(ids.tolist(), found.tolist(), strict=True))
