"""TopK SAE with the AuxK loss (Gao et al. 2024, arXiv 2406.04093), decoder rows at unit norm:

f = ReLU(TopK_k(W_enc (x - b_dec) + b_enc)),   x_hat = W_dec f + b_dec
L = ||x - x_hat||^2 + AuxK                     (`saes/auxk.py`; with `groups` above 1 as in `saes/nested.py`)
"""

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.topk.facts import TopKConfig
from sae_sweep.saes.auxk import auxk_losses
from sae_sweep.saes.base import Losses, Parameters, SaeMaths, Step
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder
from sae_sweep.saes.forms.topk import TopKForm
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.saes.initial import Start
from sae_sweep.saes.nested import Errors, errors


class TopK(SaeMaths):
    """The maths of `sae=topk`."""

    unit_decoder = True

    def __init__(self, config: SaeConfig):
        pass

    def initialise(self, config: SaeConfig, start: Start, width: int, generator: torch.Generator) -> Parameters:
        """b_enc at 0."""
        W_dec = start.decoder(config.decoder_init, width, generator)
        b_dec = start.b_dec(config.b_dec_init)
        assert isinstance(config, TopKConfig)
        W_enc = start.encoder(config.encoder_init, W_dec, b_dec, generator, config.active())
        return {"W_enc": W_enc, "b_enc": torch.zeros(width), "W_dec": W_dec, "b_dec": b_dec}

    def losses(self, p: Parameters, x_BD: Tensor, target_BMD: Tensor, step: Step) -> Losses:
        codes, z = self.select(step.encoder(x_BD, p["W_enc"], p["b_enc"], p["b_dec"]), step)
        f = torch.relu(z)
        errors = self.errors(codes, f, p, target_BMD, step)
        return Losses(
            reconstruction_M=step.objective.loss(errors.whole_BMD),
            sparsity_M=None,
            auxiliary_M=errors.and_inner(self.auxiliary(p, x_BD, errors.whole_BMD, step)),
            fired_F=codes.fired(f),
            support_F=codes.support(),
            buffers=self.buffers_after(f.detach(), codes, step),
        )

    def select(self, encoder: Encoder, step: Step) -> tuple[Codes, Tensor]:
        """Which latents fire, and their pre-activations."""
        return encoder.largest_of_rows(kept(step))

    def errors(self, codes: Codes, f: Tensor, p: Parameters, target_BMD: Tensor, step: Step) -> Errors:
        """Of the reconstructions that the loss is of."""
        return errors(codes, f, p, target_BMD, step)

    def auxiliary(self, p: Parameters, x_BD: Tensor, error_BMD: Tensor, step: Step) -> Tensor | None:
        """[M]: what is added to the loss; None where that is nothing."""
        return auxk_losses(p, x_BD, error_BMD, step)

    def buffers_after(self, f: Tensor, codes: Codes, step: Step) -> Parameters:
        """The buffers that this step's activations change."""
        return {}

    def fold(self, config: SaeConfig, p: Parameters, buffers: Parameters, scale: float) -> InferenceSae:
        assert isinstance(config, TopKConfig)
        return InferenceSae(TopKForm(config.active()), folded_tensors(p, scale), subtract_b_dec=True)

    def revive(self, p: Parameters, latents: Tensor, directions_KD: Tensor, encoder_norm: Tensor) -> tuple[str, ...]:
        raise AssertionError("AuxK revives these latents, not resampling")


def folded_tensors(p: Parameters, scale: float) -> Parameters:
    """The tensors of an SAE with b_enc, a pre-encoder bias and unit decoder rows, for raw activations."""
    return {
        "W_enc": p["W_enc"].T.contiguous(),
        "b_enc": p["b_enc"] / scale,
        "W_dec": p["W_dec"].clone(),
        "b_dec": p["b_dec"] / scale,
    }


def kept(step: Step) -> list[int]:
    """How many latents of each member fire, per token."""
    configs = [config for config in step.configs if isinstance(config, TopKConfig)]
    return [config.active() for config in configs]


Maths = TopK
