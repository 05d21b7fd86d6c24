"""JumpReLU SAE, thresholds theta = exp(log_threshold), H the step function.

`deepmind` (Rajamanoharan et al. 2024, arXiv 2407.14435; Gemma Scope, 2408.05147), decoder rows kept at unit norm, or
with `free_decoder` only started there:

    z = W_enc (x - b_dec) + b_enc,   f = z H(z - theta),   x_hat = W_dec f + b_dec
    L = ||x - x_hat||^2 + coefficient P
    l0:         P = ||f||_0 = sum_i H(z_i - theta_i)
    target_l0:  P = V (mean ||f||_0 / target - 1)^2, V the loss of the mean input
    frequency:  P = sum_i p_i (1 + p_i / w), p_i how often latent i fires in the batch and w `frequency_scale`
                (Google DeepMind's post on high-frequency latents, 2025)
    quadratic_frequency:  P = V ((mean ||f||_0 / target - 1)^2 + sum_i p_i^2 / (w `sae.l0`))
                (Gemma Scope 2, section 2.3: a quadratic L0 penalty, lambda 2 / L0* (||f||_0 - L0*)^2, which is this one
                at lambda = V / (2 L0*), and a second one on frequent latents. The report gives neither lambda nor what
                the second is; ours is the quadratic part of frequency, since sum_i p_i is the L0 that the first holds)

With `groups` above 1 the squared error is that of `saes/nested.py`, and V is that of all prefixes. P trains the
thresholds alone, by straight-through estimators (`straight_through.py`). V makes it weigh the same whatever the inputs'
size. During the sparsity warm-up, target falls from the first step's L0 to `sae.l0`, by the same factor each step:
where few latents may fire from the first step on, more of them die.

`anthropic` ("Dictionary Learning Optimization Techniques", January 2025), decoder free, no pre-encoder bias:

    z = W_enc x + b_enc
    L = ||x - x_hat||^2 + coefficient sum_i tanh(c f_i ||W_dec,i||) + a sum_i ReLU(theta_i - z_i) ||W_dec,i||

with c `tanh_scale` and a `preactivation_coefficient`; the estimator's gradient reaches z as well as theta.
"""

from math import log, sqrt

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.architectures.jumprelu.facts import AIMED, JumpReluConfig
from sae_sweep.architectures.jumprelu.straight_through import Heaviside, Jump
from sae_sweep.kernels.device import beside
from sae_sweep.kernels.selection import smallest_of_largest
from sae_sweep.saes.base import Losses, Parameters, SaeMaths, Step
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.forms.jumprelu import JumpReluForm
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.saes.initial import Start
from sae_sweep.saes.nested import errors

ANTHROPIC_DECODER_NORM = 1 / sqrt(3)
"""The norm of a row drawn from U(-1 / sqrt(d), 1 / sqrt(d))."""
ANTHROPIC_FIRST_L0 = 10_000
"""b_enc starts where each of F latents fires on this over F of the tokens, at most half of them."""

DEFAULT_THRESHOLD = 1e-3
"""Gemma Scope's first threshold. It is far below where most L0s need it, and log-thresholds move by about lr a step:
its 300k steps get there, a thousand do not."""
BANDWIDTH_SHARE = 0.5
"""Of an activation, where the config leaves the kernel's width open: docs/recipes.md has what widths were tried."""
DEFAULT_L0 = 32.0
"""Whose activations it goes by without `sae.l0`."""
FIRST_L0S = 16
"""With an L0 to reach, thresholds start where up to so many times that fire on a token."""
FIRST_SHARE = 8
"""But no more than one latent in so many: thresholds would start near 0, which log-thresholds are slow to leave."""
LEAST_FIRST_L0S = 2
"""At least so many times, though."""
FIRING_INPUTS = 1_024
"""On which that is measured."""
LATENTS_AT_ONCE = 1_024
"""Whose first pre-activations on the sampled inputs are held at a time."""


class JumpRelu(SaeMaths):
    """The maths of `sae=jumprelu`, either variant."""

    def __init__(self, config: SaeConfig):
        assert isinstance(config, JumpReluConfig)
        self.deepmind = config.deepmind
        self.unit_decoder = config.unit_decoder
        self.penalty = config.chosen_penalty
        self.threshold_init = config.threshold_init

    def initialise(self, config: SaeConfig, start: Start, width: int, generator: torch.Generator) -> Parameters:
        """deepmind: b_enc at 0. anthropic: shorter decoder rows, b_enc from the data. Thresholds: `threshold_init`."""
        W_dec = start.decoder(config.decoder_init, width, generator)
        if not self.deepmind:
            W_dec = ANTHROPIC_DECODER_NORM * W_dec
        b_dec = start.b_dec(config.b_dec_init)
        firing = None if config.l0 is None else first_l0(max(1, round(config.l0)), width)
        W_enc = start.encoder(config.encoder_init, W_dec, b_dec, generator, firing if self.deepmind else None)
        threshold = self.threshold_init or DEFAULT_THRESHOLD
        if self.threshold_init is None and firing is not None:
            about_ND = start.centred(b_dec) if self.deepmind else start.inputs_ND
            threshold = max(threshold, _firing_threshold(about_ND[:FIRING_INPUTS], W_enc, firing))
        log_threshold = torch.full((width,), log(threshold))
        b_enc = torch.zeros(width) if self.deepmind else _firing_bias(start.inputs_ND, W_enc, log_threshold.exp())
        return {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "log_threshold": log_threshold, "b_dec": b_dec}

    def buffers(self, config: SaeConfig) -> Parameters:
        return {"first_l0": torch.zeros(())} if self.penalty in AIMED else {}

    def measured(self, config: SaeConfig, first: Parameters | None, variance: float) -> dict[str, float]:
        assert isinstance(config, JumpReluConfig)
        found = {"bandwidth": config.bandwidth or _bandwidth(config, variance)}
        if first is not None:
            found["threshold_init"] = first["log_threshold"][0].double().exp().item()
        return found

    def losses(self, p: Parameters, x_BD: Tensor, target_BMD: Tensor, step: Step) -> Losses:
        b_pre = p["b_dec"] if self.deepmind else None
        theta_F, bandwidth_F = p["log_threshold"].exp(), _bandwidths(step, x_BD)
        encoder = step.encoder(x_BD, p["W_enc"], p["b_enc"], b_pre)
        codes, z = encoder.above(theta_F.detach() - bandwidth_F / 2)  # the kernel reaches below the threshold
        theta, bandwidth = codes.at_latent(theta_F), codes.at_latent(bandwidth_F)
        f = codes.inside(Jump.apply(z, theta, bandwidth, not self.deepmind))
        found = errors(codes, f, p, target_BMD, step)
        if self.deepmind:
            fires = codes.inside(Heaviside.apply(z, theta, bandwidth))
            sparsity_M, buffers = self._step_penalty(fires, codes, step)
            auxiliary_M = None
        else:
            buffers = {}
            sparsity_M = _tanh_penalty(f, codes, p, step)
            auxiliary_M = _preactivation_loss(p, x_BD, z, codes, theta_F, step)
        return Losses(
            reconstruction_M=step.objective.loss(found.whole_BMD),
            sparsity_M=sparsity_M,
            auxiliary_M=found.and_inner(auxiliary_M),
            fired_F=codes.fired(f),
            support_F=codes.support(),
            buffers=buffers,
        )

    def _step_penalty(self, fires: Tensor, codes: Codes, step: Step) -> tuple[Tensor, Parameters]:
        """[M]: a penalty on how many latents fire, as `penalty` says; and the buffers that changed."""
        excess_M = None
        if self.penalty in ("frequency", "quadratic_frequency"):
            frequency_F = codes.latent_sums(fires) / codes.tokens
            excess_F = frequency_F.square() / _by_latent(step, "frequency_scale", fires)
            if self.penalty == "frequency":
                return step.layout.sums(frequency_F + excess_F), {}
            excess_M = step.layout.sums(excess_F)
        l0_M = codes.member_sums(fires) / codes.tokens
        if self.penalty not in AIMED:
            return l0_M, {}
        first_M = _first_of(l0_M.detach(), step)
        penalty_M = (l0_M / _targets(first_M, step) - 1).square()
        if excess_M is not None:
            penalty_M = penalty_M + excess_M / beside(l0_M, [config.l0 or DEFAULT_L0 for config in step.configs])
        worth = step.variance * step.objective.worth
        return beside(l0_M, [worth * c.reconstructions for c in step.configs]) * penalty_M, {"first_l0": first_M}

    def fold(self, config: SaeConfig, p: Parameters, buffers: Parameters, scale: float) -> InferenceSae:
        norm_F = p["W_dec"].norm(dim=1)
        tensors = {
            "W_enc": (p["W_enc"] * norm_F[:, None]).T.contiguous(),
            "b_enc": p["b_enc"] * norm_F / scale,
            "threshold": p["log_threshold"].exp() * norm_F / scale,
            "W_dec": p["W_dec"] / norm_F[:, None],
            "b_dec": p["b_dec"] / scale,
        }
        return InferenceSae(JumpReluForm(), tensors, subtract_b_dec=self.deepmind)

    def unfold(self, sae: InferenceSae, scale: float) -> Parameters:
        p = super().unfold(sae, scale)
        log_threshold = p.pop("threshold").log()
        return {**p, "log_threshold": log_threshold}

    def revive(self, p: Parameters, latents: Tensor, directions_KD: Tensor, encoder_norm: Tensor) -> tuple[str, ...]:
        p["W_dec"][latents] = directions_KD * (1.0 if self.deepmind else ANTHROPIC_DECODER_NORM)
        p["W_enc"][latents] = directions_KD * encoder_norm
        p["b_enc"][latents] = 0
        init = self.threshold_init
        p["log_threshold"][latents] = p["log_threshold"].mean() if init is None else log(init)
        return ("W_dec", "W_enc", "b_enc", "log_threshold")

    def row_penalty(self, f_BF: Tensor) -> Tensor:
        """L0; nothing for what aims at one, which is of a whole batch."""
        fires_BF = f_BF > 0 if self.penalty not in AIMED else torch.zeros_like(f_BF)
        return fires_BF.sum(1).to(f_BF.dtype)


def first_l0(l0: int, width: int) -> int:
    """How many latents fire on a token at first, of a member that is to reach `l0`."""
    return min(width, max(LEAST_FIRST_L0S * l0, min(FIRST_L0S * l0, width // FIRST_SHARE)))


def _first_of(l0_M: Tensor, step: Step) -> Tensor:
    """[M]: the L0 of each member's first step, given this one's."""
    begins_M = beside(l0_M, [clock.step == 0 for clock in step.clocks], torch.bool)
    return torch.where(begins_M, l0_M, step.buffers["first_l0"])


def _targets(first_M: Tensor, step: Step) -> Tensor:
    """[M]: the L0 that is wanted now: a warm-up takes it down by FIRST_L0S times, or as far as it has to go."""
    l0_M = beside(first_M, [config.l0 or DEFAULT_L0 for config in _configs(step)])
    done_M = beside(first_M, [clock.sparsity for clock in step.clocks])
    fall_M = (first_M / l0_M).clamp(min=FIRST_L0S)
    return torch.maximum(l0_M, first_M * fall_M**-done_M)


def _tanh_penalty(f: Tensor, codes: Codes, p: Parameters, step: Step) -> Tensor:
    norm_F = step.spaces.decoder_norms(p["W_dec"])
    saturating = torch.tanh(f * codes.at_latent(_by_latent(step, "tanh_scale", norm_F) * norm_F))
    return codes.member_sums(saturating) / codes.tokens


def _preactivation_loss(
    p: Parameters, x_BD: Tensor, z: Tensor, codes: Codes, theta_F: Tensor, step: Step
) -> Tensor | None:
    """[M]: a sum_i ReLU(theta_i - z_i) ||W_dec,i||, averaged over tokens; None where a is 0 for all.

    ReLU(u) = u + ReLU(-u). u = theta - z is linear in x, so its sum over all latents takes the mean input alone;
    ReLU(-u) is 0 but where a latent fires.
    """
    if not any(config.preactivation_coefficient for config in _configs(step)):
        return None
    cost_F = _by_latent(step, "preactivation_coefficient", z) * step.spaces.decoder_norms(p["W_dec"])
    everywhere_F = (theta_F - (step.spaces.product(p["W_enc"], x_BD.mean(0)) + p["b_enc"])) * cost_F
    above = torch.relu(z - codes.at_latent(theta_F)) * codes.at_latent(cost_F)
    return step.layout.sums(everywhere_F) + codes.member_sums(above) / codes.tokens


def _firing_threshold(inputs_ND: Tensor, W_enc: Tensor, l0: int) -> float:
    """What an input's pre-activations, one with another, exceed so many times."""
    z_NF = inputs_ND @ W_enc.T
    return float(smallest_of_largest(z_NF, l0 * len(z_NF)))


def _firing_bias(inputs_ND: Tensor, W_enc: Tensor, theta_F: Tensor) -> Tensor:
    """[F]: the b_enc with which each latent fires on the wanted share of the inputs."""
    share = min(0.5, ANTHROPIC_FIRST_L0 / len(W_enc))
    rank = max(1, round((1 - share) * len(inputs_ND)))
    parts = [(rows_FD @ inputs_ND.T).kthvalue(rank, dim=1).values for rows_FD in W_enc.split(LATENTS_AT_ONCE)]
    return theta_F - torch.cat(parts)


def _bandwidths(step: Step, like: Tensor) -> Tensor:
    """[F]: `bandwidth`, or where it is null what goes with `sae.l0`."""
    values_M = beside(like, [config.bandwidth or _bandwidth(config, step.variance) for config in _configs(step)])
    return values_M.index_select(0, step.layout.member_F)


def _bandwidth(config: JumpReluConfig, variance: float) -> float:
    """What `l0` equal activations would be if they carried the centred input, times a share."""
    return BANDWIDTH_SHARE * sqrt(variance / (config.l0 or DEFAULT_L0))


def _by_latent(step: Step, key: str, like: Tensor) -> Tensor:
    """[F]: a key of each member's config, for its latents."""
    values_M = beside(like, [getattr(config, key) for config in _configs(step)])
    return values_M.index_select(0, step.layout.member_F)


def _configs(step: Step) -> list[JumpReluConfig]:
    configs = [config for config in step.configs if isinstance(config, JumpReluConfig)]
    assert len(configs) == len(step.configs)
    return configs


Maths = JumpRelu
