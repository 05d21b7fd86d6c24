"""Standard L1 SAE.

`bricken` (Bricken et al. 2023, "Towards Monosemanticity"), decoder rows at unit norm:

    f = ReLU(W_enc (x - b_dec) + b_enc),   x_hat = W_dec f + b_dec
    L = ||x - x_hat||^2 + l1 ||f||_1

`april` (Anthropic, "Update on how we train SAEs", April 2024), decoder free, no pre-encoder bias:

    f = ReLU(W_enc x + b_enc),             x_hat = W_dec f + b_dec
    L = ||x - x_hat||^2 + l1 sum_i f_i ||W_dec,i||

With `groups` above 1 the squared error is that of `saes/nested.py`.
"""

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.p_anneal.facts import PAnnealConfig
from sae_sweep.architectures.standard.facts import StandardConfig
from sae_sweep.saes.base import Losses, Parameters, SaeMaths, Step, l1_penalty
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.saes.initial import Start
from sae_sweep.saes.nested import errors

APRIL_DECODER_NORM = 0.1


class Standard(SaeMaths):
    """The maths of `sae=standard`, either variant."""

    def __init__(self, config: SaeConfig):
        assert isinstance(config, StandardConfig | PAnnealConfig)
        self.unit_decoder = config.unit_decoder

    def initialise(self, config: SaeConfig, start: Start, width: int, generator: torch.Generator) -> Parameters:
        """b_enc at 0; april's decoder rows are short."""
        W_dec = start.decoder(config.decoder_init, width, generator)
        if not self.unit_decoder:
            W_dec = APRIL_DECODER_NORM * W_dec
        b_dec = start.b_dec(config.b_dec_init)
        W_enc = start.encoder(config.encoder_init, W_dec, b_dec, generator)
        return {"W_enc": W_enc, "b_enc": torch.zeros(width), "W_dec": W_dec, "b_dec": b_dec}

    def losses(self, p: Parameters, x_BD: Tensor, target_BMD: Tensor, step: Step) -> Losses:
        b_pre = p["b_dec"] if self.unit_decoder else None
        codes, f = step.encoder(x_BD, p["W_enc"], p["b_enc"], b_pre).above()
        found = errors(codes, f, p, target_BMD, step)
        sparsity_M, buffers = self.penalty(f, codes, p, step)
        support_F = codes.support()
        return Losses(
            reconstruction_M=step.objective.loss(found.whole_BMD),
            sparsity_M=sparsity_M,
            auxiliary_M=found.inner_M,
            fired_F=support_F,
            support_F=support_F,
            buffers=buffers,
        )

    def penalty(self, f: Tensor, codes: Codes, p: Parameters, step: Step) -> tuple[Tensor, Parameters]:
        """[M]: what the coefficient multiplies, averaged over tokens; and the buffers that changed."""
        return l1_penalty(f, codes, self.norms(p, step), step), {}

    def norms(self, p: Parameters, step: Step) -> Tensor | None:
        """[F]: of decoder rows; None at a single site where they are kept at 1."""
        return None if self.unit_decoder and step.spaces.sites == 1 else step.spaces.decoder_norms(p["W_dec"])

    def fold(self, config: SaeConfig, p: Parameters, buffers: Parameters, scale: float) -> InferenceSae:
        norm_F = p["W_dec"].norm(dim=1)
        tensors = {
            "W_enc": (p["W_enc"] * norm_F[:, None]).T.contiguous(),
            "b_enc": p["b_enc"] * norm_F / scale,
            "W_dec": p["W_dec"] / norm_F[:, None],
            "b_dec": p["b_dec"] / scale,
        }
        return InferenceSae(ReluForm(), tensors, subtract_b_dec=self.unit_decoder)

    def revive(self, p: Parameters, latents: Tensor, directions_KD: Tensor, encoder_norm: Tensor) -> tuple[str, ...]:
        p["W_dec"][latents] = directions_KD * (1.0 if self.unit_decoder else APRIL_DECODER_NORM)
        p["W_enc"][latents] = directions_KD * encoder_norm
        p["b_enc"][latents] = 0
        return ("W_dec", "W_enc", "b_enc")


Maths = Standard
