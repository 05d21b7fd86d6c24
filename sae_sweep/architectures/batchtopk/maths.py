"""BatchTopK SAE (Bussmann et al. 2024, arXiv 2412.06410), decoder rows at unit norm:

    f = the B k largest of ReLU(W_enc (x - b_dec) + b_enc) over a batch of B tokens, 0 elsewhere
    x_hat = W_dec f + b_dec,   L = ||x - x_hat||^2 + AuxK      (`auxk.py`)

Pre-activations equal to the smallest that is kept are all kept. At inference a token does not see its batch: f is a
JumpReLU at one threshold for all latents, the mean over batches of the smallest positive activation kept.
"""

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.topk.maths import TopK, folded_tensors, kept
from sae_sweep.kernels.device import beside
from sae_sweep.saes.base import Clock, Parameters, Step
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.inference import InferenceSae

MEAN_STEPS = 1_000
"""The threshold is a running mean over about this many steps, or a twentieth of the run where that is less."""


class BatchTopK(TopK):
    """The maths of `sae=batchtopk`."""

    threshold_mode = "ema"

    def buffers(self, config: SaeConfig) -> Parameters:
        return {"threshold": torch.zeros(())}

    def select(self, encoder: Encoder, step: Step) -> tuple[Codes, Tensor]:
        return encoder.largest_of_all([count * encoder.tokens for count in kept(step)])

    def buffers_after(self, f: Tensor, codes: Codes, step: Step) -> Parameters:
        return {"threshold": threshold_after(codes.member_minima(f), step)}

    def fold(self, config: SaeConfig, p: Parameters, buffers: Parameters, scale: float) -> InferenceSae:
        tensors = folded_tensors(p, scale)
        tensors["threshold"] = (buffers["threshold"] / scale).expand_as(tensors["b_enc"]).contiguous()
        return InferenceSae(JumpReluForm(), tensors, subtract_b_dec=True)

    def unfold(self, sae: InferenceSae, scale: float) -> Parameters:
        """The threshold is no parameter: it is a running mean, which begins anew."""
        return {name: tensor for name, tensor in super().unfold(sae, scale).items() if name != "threshold"}


def threshold_after(smallest_M: Tensor, step: Step) -> Tensor:
    """[M]: the running mean of the smallest kept activation, with this batch's in it."""
    before_M = step.buffers["threshold"]
    weight_M = beside(smallest_M, [mean_weight(clock) for clock in step.clocks])
    # Where nothing was kept the smallest is infinite.
    return torch.where(smallest_M.isfinite(), before_M + weight_M * (smallest_M - before_M), before_M)


def mean_weight(clock: Clock) -> float:
    """A plain mean at first, then an exponential one."""
    return max(1 / (clock.step + 1), 1 / min(MEAN_STEPS, max(1, clock.total_steps // 20)))


Maths = BatchTopK
