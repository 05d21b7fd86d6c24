"""Temporal SAE (Bhalla et al. 2025, arXiv 2511.05541, section 3.2): what is high-level stays from a token to the next.

    L = ||x - x_hat||^2 + ||x - x_hat_h||^2 + AuxK + a V C

is Matryoshka's on BatchTopK with two prefixes, all latents and the first h, `high_share` of them; x_hat and x_hat_h are
their reconstructions (`saes/nested.py`). C is contrastive, over the P tokens of a batch whose predecessor counts too:
with c_t the high-level part of a token's code and c'_t that of the token before it,

    s_ij = cos(c_i, c'_j),   C = -1/2P sum_i (log softmax_j(s_ij)_i + log softmax_j(s_ji)_i)

The codes of the tokens before are chosen among themselves, k a token on average as those of the batch, and only C sees
them, as in the paper's code. a is `contrast`; V = E||x - mean||^2 makes it weigh the same whatever the inputs' size.
The paper's contrastive loss is the sum of both directions, 2 C, and weighs 1: a = 2. Its code has the product of codes
where the paper has their cosine, 0.1 C beside (0.2 ||x - x_hat_h||^2 + 0.8 ||x - x_hat||^2) / 2, and inputs as they
are.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from sae_sweep.architectures.batchtopk.maths import BatchTopK
from sae_sweep.architectures.temporal.facts import TemporalConfig
from sae_sweep.saes.base import Parameters, Step
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.nested import Errors

FAR = -1e4
"""So much lower than any cosine that it counts as none; finite, for rows that meet nobody."""


class Temporal(BatchTopK):
    """The maths of `sae=temporal`."""

    def errors(self, codes: Codes, f: Tensor, p: Parameters, target_BMD: Tensor, step: Step) -> Errors:
        found = super().errors(codes, f, p, target_BMD, step)
        assert step.before is not None
        before, z = self.select(step.encoder(step.before.x_BD, p["W_enc"], p["b_enc"], p["b_dec"]), step)
        f_before, there_B = torch.relu(z), step.before.there_B
        terms = []
        for config, latents in zip(step.configs, step.layout.slices, strict=True):
            assert isinstance(config, TemporalConfig)
            high = slice(latents.start, latents.start + config.high(latents.stop - latents.start))
            own_BH, other_BH = (c.dense(v, high) for c, v in ((codes, f), (before, f_before)))
            if there_B.device.type == "cpu":
                loss = contrastive(own_BH[there_B], other_BH[there_B])
            else:
                loss = contrastive_among(own_BH, other_BH, there_B)
            terms.append(config.contrast * step.variance * loss)
        return replace(found, inner_M=found.and_inner(torch.stack(terms)))


def contrastive(own_PH: Tensor, other_PH: Tensor) -> Tensor:
    """C of codes that belong together row by row; 0 without any."""
    if len(own_PH) == 0:
        return own_PH.sum() + other_PH.sum()
    similar_PP = normalize(own_PH, dim=1) @ normalize(other_PH, dim=1).T
    same_P = torch.arange(len(own_PH), device=own_PH.device)
    return (cross_entropy(similar_PP, same_P) + cross_entropy(similar_PP.T, same_P)) / 2


def contrastive_among(own_BH: Tensor, other_BH: Tensor, there_B: Tensor) -> Tensor:
    """The same of those rows at which a mask is true, where only the device knows how many these are."""
    similar_BB = normalize(own_BH, dim=1) @ normalize(other_BH, dim=1).T
    terms_B = -2 * similar_BB.diagonal()
    for each_BB in (similar_BB, similar_BB.T):
        terms_B = terms_B + each_BB.masked_fill(~there_B, FAR).logsumexp(1)
    return torch.where(there_B, terms_B, 0).sum() / (2 * there_B.sum().clamp(min=1))


Maths = Temporal
