"""Gated SAE (Rajamanoharan et al. 2024, arXiv 2404.16014, section 3).

`unit_norm`, decoder rows at unit norm:

    pi_gate = W_gate (x - b_dec) + b_gate
    f = 1[pi_gate > 0] * ReLU(exp(r_mag) * W_gate (x - b_dec) + b_mag),   x_hat = W_dec f + b_dec
    L = ||x - x_hat||^2 + l1 ||ReLU(pi_gate)||_1 + ||x - sg(W_dec) ReLU(pi_gate) - sg(b_dec)||^2

sg is stop-gradient. No gradient flows through the indicator, so reconstruction never reaches b_gate; b_dec still
has one through x - b_dec in every term, as in the paper's pseudo-code. W_gate is called W_enc here.

`decoder_norm` (its authors' comment on the post that announced it), decoder free:

    L = ||x - x_hat||^2 + l1 sum_i ReLU(pi_gate)_i ||W_dec,i|| + ||x - W_dec ReLU(pi_gate) - b_dec||^2

Freezing the decoder in one of the last two terms but not in both is clearly worse, they say; neither is frozen.
"""

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.gated.facts import GatedConfig
from sae_sweep.saes.base import Losses, Parameters, SaeMaths, Step, l1_penalty, squared_error
from sae_sweep.saes.forms.gated import GatedForm
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.saes.initial import Start


class Gated(SaeMaths):
    """The maths of `sae=gated`, either variant."""

    def __init__(self, config: SaeConfig):
        assert isinstance(config, GatedConfig)
        self.unit_decoder = config.unit_decoder

    def initialise(self, config: SaeConfig, start: Start, width: int, generator: torch.Generator) -> Parameters:
        """r_mag and both biases at 0. The paper is silent about W_gate and b_dec."""
        W_dec = start.decoder(config.decoder_init, width, generator)
        b_dec = start.b_dec(config.b_dec_init)
        W_enc = start.encoder(config.encoder_init, W_dec, b_dec, generator)
        zeros = {name: torch.zeros(width) for name in ("b_gate", "b_mag", "r_mag")}
        return {"W_enc": W_enc, "W_dec": W_dec, **zeros, "b_dec": b_dec}

    def losses(self, p: Parameters, x_BD: Tensor, target_BMD: Tensor, step: Step) -> Losses:
        codes, z = step.encoder(x_BD, p["W_enc"], None, p["b_dec"]).above(-p["b_gate"].detach())
        gate = codes.inside(z + codes.at_latent(p["b_gate"]))
        magnitude = torch.addcmul(codes.at_latent(p["b_mag"]), codes.at_latent(p["r_mag"].exp()), z)
        f = codes.inside(torch.relu(magnitude))
        x_hat_BMD, x_aux_BMD = codes.decode_both(f, gate, p["W_dec"], frozen=self.unit_decoder)
        if self.unit_decoder:  # a lookup is the decoder's too: it moves the target
            b_aux, target_aux = p["b_dec"].detach(), target_BMD.detach()
            # frozen as in that term
            norms_F = step.spaces.decoder_norms(p["W_dec"].detach()) if step.spaces.sites > 1 else None
        else:
            b_aux, target_aux = p["b_dec"], target_BMD
            norms_F = step.spaces.decoder_norms(p["W_dec"])
        return Losses(
            reconstruction_M=step.objective.loss((x_hat_BMD + p["b_dec"]).sub_(target_BMD)),
            sparsity_M=l1_penalty(gate, codes, norms_F, step),
            auxiliary_M=squared_error((x_aux_BMD + b_aux).sub_(target_aux)),
            fired_F=codes.fired(f),
            support_F=codes.support(),
        )

    def fold(self, config: SaeConfig, p: Parameters, buffers: Parameters, scale: float) -> InferenceSae:
        norm_F = p["W_dec"].norm(dim=1)
        tensors = {
            "W_enc": p["W_enc"].T.contiguous(),
            "b_gate": p["b_gate"] / scale,
            "b_mag": p["b_mag"] * norm_F / scale,
            "r_mag": p["r_mag"] + norm_F.log(),
            "W_dec": p["W_dec"] / norm_F[:, None],
            "b_dec": p["b_dec"] / scale,
        }
        return InferenceSae(GatedForm(), tensors, subtract_b_dec=True)

    def revive(self, p: Parameters, latents: Tensor, directions_KD: Tensor, encoder_norm: Tensor) -> tuple[str, ...]:
        p["W_dec"][latents] = directions_KD
        p["W_enc"][latents] = directions_KD * encoder_norm
        for name in ("b_gate", "b_mag", "r_mag"):
            p[name][latents] = 0
        return ("W_dec", "W_enc", "b_gate", "b_mag", "r_mag")


Maths = Gated
